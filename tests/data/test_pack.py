"""Packing: shards that plain webdataset reads, the same for any workers at any time, whole or not there at all."""

import hashlib
import json
import os
import time
from pathlib import Path

import numpy as np
import pytest
import webdataset
from PIL import Image

from refiner_ds.data.index import Dataset, read_index
from refiner_ds.data.manifest import VIEWS, Sample, read_manifest
from refiner_ds.data.pack import Recipe, pack
from refiner_ds.errors import UserError

SIZES = [(64, 48), (48, 48), (80, 64)] * 3
DATASETS = (Dataset("a", 1.0, "a.json", 0),)


@pytest.fixture(scope="module")
def small(dataset, tmp_path_factory):
    """The manifest of nine small triplets; one gt is a JPEG under a PNG's name."""
    path = dataset(tmp_path_factory.mktemp("small"), SIZES)
    gt = path.parent / "gt" / "002.png"
    picture = Image.open(gt)
    picture.load()
    picture.save(gt, "JPEG")
    return path


def hashes_of(folder: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.iterdir()}


def keys_of(index, split):
    return [index.key(row) for row in index.rows(split)]


def pack_samples(samples, out, val=1, workers=1, datasets=DATASETS, **more):
    """Packs samples, of which the last `val` are held out; what is no part of the recipe goes on."""
    recipe = Recipe(**{name: more.pop(name) for name in list(more) if name in Recipe.__dataclass_fields__})
    splits = ["train"] * (len(samples) - val) + ["val"] * val
    return pack(samples, splits, datasets, out, recipe, workers, **more)


def spoiled(sample: Sample, view: str, path: Path) -> Sample:
    return Sample({**sample.files, view: path}, sample.sources)


def test_plain_webdataset_reads_every_sample_with_untouched_bytes(small, pack_dataset, tmp_path):
    pack_dataset(small, tmp_path / "out", val=2, shard_size=1)
    samples = read_manifest(small)
    tars = sorted(str(path) for path in (tmp_path / "out").glob("*.tar"))
    found = list(webdataset.WebDataset(tars, shardshuffle=False))
    assert len(tars) == len(SIZES)
    assert sorted(sample["__key__"] for sample in found) == [f"{number:08d}" for number in range(len(SIZES))]
    for packed in found:
        number = int(packed["__key__"])
        sample, (width, height) = samples[number], SIZES[number]
        members = {"render.png", "gt.jpg" if number == 2 else "gt.png", "cond.png", "json"}
        assert members == {name for name in packed if not name.startswith("__")}
        for member in members - {"json"}:
            assert packed[member] == sample.files[member.split(".")[0]].read_bytes()
        card = {"width": width, "height": height, "sources": sample.sources, "dataset": "test", "scene": None}
        assert json.loads(packed["json"]) == {"key": packed["__key__"], **card}
    decoded = next(iter(webdataset.WebDataset(tars[:1], shardshuffle=False).decode("rgb8")))
    assert decoded["render.png"].dtype == np.uint8


@pytest.mark.parametrize("workers", [2, 3])
def test_the_bytes_depend_neither_on_the_workers_nor_on_the_time(small, pack_dataset, tmp_path, workers):
    one = pack_dataset(small, tmp_path / "one", val=2, shard_size=20_000)
    first = hashes_of(tmp_path / "one")
    assert len(one.shards) > 3 and len(first) == len(one.shards) + 3
    time.sleep(1.1)
    other = pack_dataset(small, tmp_path / "other", val=2, shard_size=20_000, workers=workers)
    assert hashes_of(tmp_path / "other") == first and other.digest == one.digest
    assert all(shard.sha256 == first[shard.name] for shard in one.shards)


def test_the_index_says_where_every_picture_lies(small, pack_dataset, tmp_path):
    out = tmp_path / "out"
    packed, samples = pack_dataset(small, out, val=2, shard_size=20_000), read_manifest(small)
    index = read_index(out)
    assert index.digest == packed.digest and np.array_equal(index.records, packed.records)
    lines = (out / "sources.jsonl").read_text().splitlines()
    assert len(index) == len(lines) == len(SIZES)
    for row, line in enumerate(lines):
        number = int(index.key(row))
        assert (index.records["width"][row], index.records["height"][row]) == SIZES[number]
        assert json.loads(line) == {"sources": samples[number].sources, "scene": None}
        for view in VIEWS:
            shard, name, offset, size, _ = index.member(row, view)
            assert name == f"{index.key(row)}.{view}.{'jpg' if (number, view) == (2, 'gt') else 'png'}"
            descriptor = os.open(out / shard, os.O_RDONLY)
            assert os.pread(descriptor, size, offset) == samples[number].files[view].read_bytes()
            os.close(descriptor)


def test_held_out_samples_keep_their_order_and_training_ones_are_mixed(small, pack_dataset, tmp_path):
    index = pack_dataset(small, tmp_path / "out", val=4)
    assert keys_of(index, "val") == ["00000005", "00000006", "00000007", "00000008"]
    assert sorted(keys_of(index, "train")) == [f"{number:08d}" for number in range(5)] != keys_of(index, "train")
    assert all(shard.name.startswith(f"{shard.split}-") for shard in index.shards)
    other, listed = (
        pack_dataset(small, tmp_path / str(i), val=4, **o) for i, o in enumerate([{"seed": 1}, {"order": "list"}])
    )
    assert keys_of(other, "train") != keys_of(index, "train") and keys_of(other, "val") == keys_of(index, "val")
    assert keys_of(listed, "train") == [f"{number:08d}" for number in range(5)]


def test_nothing_is_held_out_where_nothing_is_asked_for(small, pack_dataset, tmp_path):
    index = pack_dataset(small, tmp_path / "out", val=0)
    assert len(index.rows("train")) == len(SIZES) and not len(index.rows("val"))


def test_several_data_sets_keep_name_weight_and_count(small, dataset, pack_dataset, tmp_path):
    other = dataset(tmp_path / "other", SIZES[:4], seed=1)
    samples = read_manifest(small) + [
        Sample(sample.files, sample.sources, scene="street", dataset=1) for sample in read_manifest(other)
    ]
    datasets = (Dataset("drive", 1.0, str(small), 0), Dataset("walk", 2.5, str(other), 0))
    index = pack_samples(samples, tmp_path / "out", val=1, datasets=datasets)
    assert [(one.name, one.weight, one.samples) for one in read_index(tmp_path / "out").datasets] == [
        ("drive", 1.0, 9),
        ("walk", 2.5, 4),
    ]
    for row in range(len(index)):
        assert index.records["dataset"][row] == (int(index.key(row)) >= len(SIZES))
    card = next(iter(webdataset.WebDataset(str(tmp_path / "out" / index.shards[-1].name), shardshuffle=False)))["json"]
    assert json.loads(card)["dataset"] == "walk" and json.loads(card)["scene"] == "street"
    heavier = pack_samples(samples, tmp_path / "b", datasets=(datasets[0], Dataset("walk", 3.0, str(other), 0)))
    assert heavier.digest != index.digest


def test_the_digest_names_the_content_and_not_the_folder(small, dataset, pack_dataset, tmp_path):
    first, again = (pack_dataset(small, tmp_path / name, val=2) for name in ("a", "b"))
    other = pack_dataset(dataset(tmp_path / "other", SIZES, seed=1), tmp_path / "c", val=2)
    other_split = pack_dataset(small, tmp_path / "d", val=3)
    assert first.digest == again.digest and len({first.digest, other.digest, other_split.digest}) == 3


def test_an_output_folder_below_a_file_is_refused_in_words(small, pack_dataset):
    with pytest.raises(UserError, match=r"manifest\.json"):
        pack_dataset(small, small / "out")


@pytest.mark.parametrize("kind", ["no picture", "folder", "gone"])
def test_a_sample_that_cannot_be_used_stops_packing_and_all_are_listed(small, tmp_path, kind):
    samples = read_manifest(small)
    path, words = {
        "no picture": (small, "gt/000.png is no readable picture"),
        "folder": (small.parent, "gt/000.png cannot be read (Is a directory)"),
        "gone": (tmp_path / "gone.png", "gt/000.png cannot be read (No such file or directory)"),
    }[kind]
    broken = [spoiled(sample, "gt", path) for sample in samples[:7]]
    with pytest.raises(UserError) as caught:
        pack_samples(broken + samples[7:], tmp_path / "out")
    sentence, report = str(caught.value), tmp_path / ".out.packing" / "problems.txt"
    assert sentence.startswith(
        f"7 of 9 samples cannot be used, and none is skipped silently ({report} lists all): {words}"
    )
    assert sentence.count("gt/00") == 5 and "; ... Mend them, take them out of the manifest, or leave" in sentence
    assert [line.split("\t")[0] for line in report.read_text().splitlines()] == [str(n) for n in range(7)]
    assert not (tmp_path / "out").exists()
    pack_samples(samples, tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_skipped_samples_are_counted_and_move_no_other_one(small, tmp_path):
    samples = read_manifest(small)
    whole = pack_samples(samples, tmp_path / "whole", val=3)
    broken = [spoiled(s, "cond", small) if number in (1, 7) else s for number, s in enumerate(samples)]
    index = pack_samples(broken, tmp_path / "out", val=3, on_error="skip")
    assert [(s.dataset, s.key, s.source) for s in index.skipped] == [
        ("a", "00000001", "render/001.png"),
        ("a", "00000007", "render/007.png"),
    ]
    assert all("cond/00" in s.reason and "is no readable picture" in s.reason for s in index.skipped)
    for split in ("train", "val"):
        expected = [key for key in keys_of(whole, split) if key not in ("00000001", "00000007")]
        assert keys_of(index, split) == expected
    assert read_index(tmp_path / "out").skipped == index.skipped and index.datasets[0].samples == 7


def test_skipping_all_training_samples_is_refused(small, tmp_path):
    samples = read_manifest(small)
    broken = [*(spoiled(sample, "gt", small) for sample in samples[:-1]), samples[-1]]
    with pytest.raises(UserError, match=r"8 of 9 samples cannot be used and no other one is there to train on; mend"):
        pack_samples(broken, tmp_path / "out", on_error="skip")


def test_progress_counts_up_to_every_sample_and_byte(small, tmp_path):
    told = []
    index = pack_samples(read_manifest(small), tmp_path / "out", shard_size=20_000, tell=lambda *all: told.append(all))
    checks, writes = ([rest for what, *rest in told if what == name] for name in ("checking", "writing"))
    assert checks[-1] == [9, 9, int(index.records["size"].sum())]
    assert writes[-1] == [9, 9, sum(shard.bytes for shard in index.shards)]
    for rows in (checks, writes):
        assert rows == sorted(rows)
