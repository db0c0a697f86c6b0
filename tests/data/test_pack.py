"""Packing and verifying: shards that plain webdataset reads, the same for any workers, whole or not there at all."""

import json
import os
import shutil
from dataclasses import asdict
from pathlib import Path

import pytest
import webdataset
from PIL import Image

from refiner_ds.data.index import read_index
from refiner_ds.data.manifest import VIEWS, Sample, read_manifest
from refiner_ds.data.pack import pack
from refiner_ds.data.verify import verify
from refiner_ds.errors import UserError

SIZES = [(64, 48), (48, 48), (80, 64)] * 3


@pytest.fixture(scope="module")
def small(dataset, tmp_path_factory):
    """The manifest of nine small triplets; one gt is a JPEG under a PNG's name."""
    path = dataset(tmp_path_factory.mktemp("small"), SIZES)
    gt = path.parent / "gt" / "002.png"
    picture = Image.open(gt)
    picture.load()
    picture.save(gt, "JPEG")
    return path


def files_of(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def problems_of(folder: Path) -> list[str]:
    return [problem for _, problems in verify(folder) for problem in problems]


def test_plain_webdataset_reads_every_sample_with_untouched_bytes(small, pack_dataset, tmp_path):
    pack_dataset(small, tmp_path / "out", val=2, shard_size=1)
    samples = read_manifest(small)
    tars = sorted(str(path) for path in (tmp_path / "out").glob("*.tar"))
    found = list(webdataset.WebDataset(tars, shardshuffle=False))
    assert [sample["__key__"] for sample in found] == [f"{number:08d}" for number in range(len(SIZES))]
    for number, (sample, packed, (width, height)) in enumerate(zip(samples, found, SIZES, strict=True)):
        members = {"render.png", "gt.jpg" if number == 2 else "gt.png", "cond.png", "json"}
        assert members == {name for name in packed if not name.startswith("__")}
        for member in members - {"json"}:
            assert packed[member] == sample.files[member.split(".")[0]].read_bytes()
        card = json.loads(packed["json"])
        assert card == {"key": packed["__key__"], "width": width, "height": height, "sources": sample.sources}


def test_the_shards_do_not_depend_on_the_workers(small, tmp_path):
    samples = read_manifest(small)
    one = pack(samples, tmp_path / "one", 2, 20_000, workers=1)
    two = pack(samples, tmp_path / "two", 2, 20_000, workers=2)
    assert len(one.shards) > 3 and one == two
    assert files_of(tmp_path / "one") == files_of(tmp_path / "two")


def test_the_index_says_where_every_picture_lies(small, pack_dataset, tmp_path):
    out = tmp_path / "out"
    packed = pack_dataset(small, out, val=2)
    index = read_index(out)
    assert index == packed and (out / "index.json").stat().st_size > 0
    entries = index.samples("train") + index.samples("val")
    for (shard, entry), sample, size in zip(entries, read_manifest(small), SIZES, strict=True):
        assert (entry.width, entry.height) == size and entry.sources == sample.sources
        descriptor = os.open(out / shard, os.O_RDONLY)
        for view in VIEWS:
            _, offset, count = entry.members[view]
            assert os.pread(descriptor, count, offset) == sample.files[view].read_bytes()
        os.close(descriptor)


def test_the_last_samples_are_held_out(small, pack_dataset, tmp_path):
    index = pack_dataset(small, tmp_path / "out", val=4)
    sources = [sample.sources["gt"] for sample in read_manifest(small)]
    for split, expected in (("train", sources[:5]), ("val", sources[5:])):
        assert [entry.sources["gt"] for _, entry in index.samples(split)] == expected
    assert all(shard.name.startswith(f"{shard.split}-") for shard in index.shards)
    assert index.samples("train")[0][1].key not in {entry.key for _, entry in index.samples("val")}


def test_nothing_is_held_out_where_nothing_is_asked_for(small, pack_dataset, tmp_path):
    index = pack_dataset(small, tmp_path / "out", val=0)
    assert len(index.samples("train")) == len(SIZES) and not index.samples("val")


@pytest.mark.parametrize("shard_size", [1, 20_000, 35_000, 1 << 29])
def test_a_shard_ends_with_the_sample_that_fills_it(small, pack_dataset, tmp_path, shard_size):
    index = pack_dataset(small, tmp_path / "out", val=0, shard_size=shard_size)
    filled = [[sum(size for *_, size in entry.members.values()) for entry in shard.samples] for shard in index.shards]
    assert all(sum(counts[:-1]) < shard_size for counts in filled)
    assert all(sum(counts) >= shard_size for counts in filled[:-1])
    assert sum(map(len, filled)) == len(SIZES)


def test_the_digest_names_the_content_and_not_the_folder(small, dataset, pack_dataset, tmp_path):
    first, again = (pack_dataset(small, tmp_path / name, val=2) for name in ("a", "b"))
    other = pack_dataset(dataset(tmp_path / "other", SIZES, seed=1), tmp_path / "c", val=2)
    other_split = pack_dataset(small, tmp_path / "d", val=3)
    assert first.digest == again.digest and len({first.digest, other.digest, other_split.digest}) == 3


@pytest.mark.parametrize("phase", ["checking", "writing"])
def test_packing_that_is_stopped_leaves_nothing(small, tmp_path, phase):
    def stop(what: str, done: int, total: int) -> None:
        if what == phase:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        pack(read_manifest(small), tmp_path / "out", 2, 1, workers=1, progress=stop)
    assert list(tmp_path.iterdir()) == []


def test_an_output_folder_below_a_file_is_refused_in_words(small, pack_dataset):
    with pytest.raises(UserError, match=r"manifest\.json"):
        pack_dataset(small, small / "out")


def test_a_refused_data_set_leaves_no_folders(small, tmp_path):
    sample = read_manifest(small)[0]
    broken = Sample({**sample.files, "gt": small}, sample.sources)
    with pytest.raises(UserError, match="1 of 2 samples cannot be used"):
        pack([sample, broken], tmp_path / "deep" / "out", 1, 1, workers=1)
    assert list(tmp_path.iterdir()) == []


def test_a_picture_that_cannot_be_read_is_named(small, tmp_path):
    sample = read_manifest(small)[0]
    gone = Sample({**sample.files, "cond": small.parent / "gt"}, sample.sources)
    with pytest.raises(UserError, match=r"1 of 2 samples cannot be used.*: cond/000.png cannot be read \(Is a dir"):
        pack([sample, gone], tmp_path / "out", 1, 1, workers=1)


def test_progress_counts_up_to_every_sample(small, tmp_path):
    told = []
    pack(
        read_manifest(small), tmp_path / "out", 2, 20_000, 1, lambda what, done, total: told.append((what, done, total))
    )
    assert told[: len(SIZES)] == [("checking", number + 1, len(SIZES)) for number in range(len(SIZES))]
    assert told[-1] == ("writing", len(SIZES), len(SIZES))


def test_sound_shards_have_no_problems(shards):
    found = list(verify(shards))
    assert len(found) > 3 and all(problems == [] for _, problems in found)


@pytest.fixture
def copied(shards, tmp_path):
    """A copy of the shared shards to be damaged, and the entry of its third training sample with its shard."""
    shutil.copytree(shards, tmp_path / "copied")
    shard, entry = read_index(tmp_path / "copied").samples("train")[2]
    return tmp_path / "copied", shard, entry


def overwrite(path: Path, offset: int, change: bytes) -> None:
    with path.open("r+b") as file:
        file.seek(offset)
        file.write(change)


def test_a_flipped_bit_is_found_wherever_it_is(copied):
    folder, shard, entry = copied
    name, offset, size = entry.members["gt"]
    path = folder / shard
    whole = path.read_bytes()
    for place in (offset + size // 2, offset + size + 1, offset - 512, 700):
        overwrite(path, place, bytes([whole[place] ^ 1]))
        assert f"{shard} has another sha256 than the index says" in problems_of(folder)
        overwrite(path, place, whole[place : place + 1])
    assert problems_of(folder) == []
    overwrite(path, offset + size // 2, bytes([whole[offset + size // 2] ^ 1]))
    assert any(problem.startswith(f"{shard}: {name} is no readable picture") for problem in problems_of(folder))


def test_missing_and_shortened_shards_are_named(copied):
    folder, shard, _ = copied
    last = read_index(folder).shards[-1]
    (folder / shard).unlink()
    os.truncate(folder / last.name, last.bytes - 10)
    assert problems_of(folder) == [
        f"{shard} is missing",
        f"{last.name} has {last.bytes - 10} bytes instead of {last.bytes}",
    ]


def test_members_that_a_tar_reader_would_not_find_are_counted(copied):
    folder, shard, entry = copied
    overwrite(folder / shard, entry.members["render"][1] - 512, bytes(1024))
    assert any(problem.startswith(f"{shard} lacks ") for problem in problems_of(folder))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"version": 2}, r"index.json has version 2 and this program reads 1; pack again"),
        ({"digest": "0" * 16}, r"says digest 0{16} but holds .* it was edited; pack again"),
        *(({"shards": shards}, r"lacks what pack writes into it.*pack again") for shards in (None, 5, [{}], ["train"])),
        ({"version": None}, r"has version None"),
    ],
)
def test_an_index_that_is_not_what_pack_wrote_is_refused(copied, change, words):
    path = copied[0] / "index.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    with pytest.raises(UserError, match=words):
        read_index(copied[0])


def test_the_index_is_plain_json_for_other_readers(shards):
    content = json.loads((shards / "index.json").read_text())
    index = read_index(shards)
    assert content["digest"] == index.digest
    assert content["shards"] == json.loads(json.dumps([asdict(shard) for shard in index.shards]))
