"""Tars that something else wrote: indexed where they lie, read as packed ones are, and refused where samples lack."""

import io
import json
import random
import tarfile
from pathlib import Path

import numpy as np
import pytest
import webdataset
from PIL import Image

from refiner_ds.cli import main
from refiner_ds.data.buckets import parse_buckets
from refiner_ds.data.foreign import list_tars
from refiner_ds.data.index import read_index
from refiner_ds.data.manifest import VIEWS, read_manifest
from refiner_ds.data.packing import look
from refiner_ds.data.samples import Samples
from refiner_ds.data.shards import open_shards
from refiner_ds.data.stream import whole
from refiner_ds.data.verify import looks_of, verify
from refiner_ds.errors import UserError

COUNT = 12


@pytest.fixture(scope="module")
def samples(dataset, tmp_path_factory):
    """The content of twelve triplets: by key of each view its bytes."""
    manifest = dataset(tmp_path_factory.mktemp("data"), [(96, 64), (72, 72)] * (COUNT // 2))
    read = read_manifest(manifest)
    return {f"drive{i // 4}/{i:04d}": {v: s.files[v].read_bytes() for v in VIEWS} for i, s in enumerate(read)}


def members_of(samples, keys=None):
    """(name, content) in the order of the samples, each with a text that is no picture."""
    for key in keys or samples:
        for view in VIEWS:
            yield f"{key}.{view}.png", samples[key][view]
        yield f"{key}.txt", key.encode()


def write_tar(path: Path, members, form=tarfile.GNU_FORMAT) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w", format=form) as tar:
        for name, content in members:
            header = tarfile.TarInfo(name)
            header.size, header.mtime = len(content), 1.5
            tar.addfile(header, io.BytesIO(content))
    return path


def index(folder: Path, *options: object) -> int:
    return main(["index", str(folder), "--workers", "1", *map(str, options)])


def assert_readable(folder: Path, samples, expected) -> None:
    """Every expected key is read from the folder's index byte for byte, and verify has nothing to say."""
    found = read_index(folder)
    assert sorted(found.key(row) for row in range(len(found))) == sorted(expected)
    for row in range(len(found)):
        for view in VIEWS:
            shard, _, offset, size, _ = found.member(row, view)
            content = (folder / shard).read_bytes()[offset : offset + size]
            assert content == samples[found.key(row)][view]
    assert [problem for file in verify(folder, 1) for problem in file.problems] == []


def test_what_webdataset_wrote_is_read(samples, tmp_path, capsys):
    with webdataset.ShardWriter(str(tmp_path / "set-%02d.tar"), maxcount=5, verbose=0) as writer:
        for key, views in samples.items():
            writer.write({"__key__": key, **{f"{view}.png": content for view, content in views.items()}})
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    assert index(tmp_path, "--val", 3) == 0
    assert all(path.read_bytes() == content for path, content in before.items()), "tars stay as they are"
    assert "train: 9 samples in 2 shards" in (out := capsys.readouterr().out) and "val: 3 samples in 2 shards" in out
    assert_readable(tmp_path, samples, samples)
    found = read_index(tmp_path)
    assert [found.key(row) for row in found.rows("val")] == list(samples)[-3:]
    assert found.made_by == "index" and [(d.name, d.samples) for d in found.datasets] == [("tars", COUNT)]
    held_out = Samples.of(open_shards(str(tmp_path)), "val", parse_buckets("1.0:64x64"), 0)
    expected = np.asarray(Image.open(io.BytesIO(samples[list(samples)[-1]]["gt"]))).transpose(2, 0, 1)
    assert np.array_equal(whole(held_out, 2).gt[0].numpy(), expected)


@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
@pytest.mark.parametrize("seed", range(3))
def test_members_may_lie_anywhere_in_any_kind_of_tar(samples, tmp_path, capsys, form, seed):
    members = list(members_of(samples))
    random.Random(seed).shuffle(members)
    half = [(name, content) for name, content in members if int(name[7:11]) % 2]
    write_tar(tmp_path / "a" / "0.tar", half, form)
    write_tar(tmp_path / "b" / "0.tar", (member for member in members if member not in half), form)
    assert index(tmp_path, "--val", 0) == 0
    assert f"{COUNT} members are no KEY.VIEW.EXTENSION of a picture and are not used" in capsys.readouterr().err
    assert_readable(tmp_path, samples, samples)
    assert [shard.name for shard in read_index(tmp_path).shards] == ["a/0.tar", "b/0.tar"]


def test_keys_with_dots_and_long_names_stay_whole(samples, tmp_path, capsys):
    first, second, third = list(samples.values())[:3]
    renamed = {"run1.v2_0": first, "run1.v2_1": second, f"{'deep/' * 40}x": third}
    write_tar(tmp_path / "0.tar", members_of(renamed))
    assert index(tmp_path, "--val", 0) == 0
    assert "2 keys hold a dot, at which plain webdataset cuts them" in capsys.readouterr().err
    assert_readable(tmp_path, renamed, renamed)


def test_scenes_and_shares_hold_out_as_they_do_for_packing(samples, tmp_path, capsys):
    for number in range(3):
        write_tar(tmp_path / f"{number}.tar", members_of(samples, list(samples)[number::3]))
    assert index(tmp_path, "--val", "25%", "--split", "scene", "--scene_pattern", r"(drive\d)/") == 0
    found = read_index(tmp_path)
    held = {found.key(row).split("/")[0] for row in found.rows("val")}
    trained = {found.key(row).split("/")[0] for row in found.rows("train")}
    assert len(held) == 1 and len(trained) == 2 and len(found.rows("val")) == 4
    lines = [json.loads(line) for line in (tmp_path / "sources.jsonl").read_text().splitlines()]
    assert [line["scene"] for line in lines] == [found.key(row).split("/")[0] for row in range(COUNT)]
    assert_readable(tmp_path, samples, samples)
    assert index(tmp_path, "--val", 2, "--scene_pattern", r"(drive\d)/") == 0, "its own index may be written anew"
    assert "1 of 3 scenes are on both sides" in capsys.readouterr().err
    assert len(read_index(tmp_path).rows("val")) == 2 and read_index(tmp_path).digest != found.digest


@pytest.fixture
def broken(samples, tmp_path):
    """Tars in which four samples cannot be used: no cond, gt twice, a text for a render, cond of another size."""
    keys = list(samples)
    members = dict(members_of(samples))
    del members[f"{keys[1]}.cond.png"]
    members[f"{keys[3]}.render.png"] = b"no picture"
    members[f"{keys[5]}.cond.png"] = samples[keys[4]]["cond"]
    twice = [(f"{keys[7]}.gt.jpg", samples[keys[7]]["gt"]), *members.items()]
    write_tar(tmp_path / "tars" / "0.tar", twice[:32])
    write_tar(tmp_path / "tars" / "1.tar", twice[32:])
    return tmp_path / "tars"


def test_samples_that_cannot_be_used_are_refused_by_count(samples, broken, capsys):
    keys = list(samples)
    before = sorted(broken.iterdir())
    assert index(broken, "--val", 2) == 2
    output = capsys.readouterr()
    report = broken / "index.problems.txt"
    (sentence,) = (line for line in output.err.splitlines() if line.startswith("refiner-ds index: "))
    words = f"4 of {COUNT} samples and 0 tars cannot be used, and none is skipped silently ({report} lists all): "
    assert words in sentence and f"0.tar: {keys[1]} has no cond; " in sentence
    assert f"0.tar: {keys[3]}.render.png is no readable picture" in sentence
    assert f"0.tar: {keys[5]}.render.png and its partners differ in size" in sentence
    assert sentence.endswith("Mend them, or leave them out with --on_error skip.")
    assert sorted(broken.iterdir()) == sorted([*before, report])


def test_samples_that_are_skipped_are_in_the_index(samples, broken, capsys):
    assert index(broken, "--val", 2, "--on_error", "skip") == 0
    found = read_index(broken)
    assert {one.key for one in found.skipped} == {list(samples)[n] for n in (1, 3, 5, 7)}
    assert {one.source for one in found.skipped} == {"0.tar"}
    assert_readable(broken, samples, [key for n, key in enumerate(samples) if n not in (1, 3, 5, 7)])
    assert f"skipped: {len(found.skipped)} samples, listed in" in capsys.readouterr().out
    assert not (broken / "index.problems.txt").exists()


@pytest.mark.parametrize(
    "kind", ["cut at a border", "cut in a header", "cut in data", "zeroed", "flipped", "compressed", "text"]
)
def test_a_damaged_tar_is_refused_though_readers_would_lose_samples(samples, tmp_path, capsys, kind):
    path = write_tar(tmp_path / "0.tar", members_of(samples))
    write_tar(tmp_path / "1.tar", members_of({f"more{key}": views for key, views in samples.items()}))
    with tarfile.open(path) as tar:
        offset, header = tar.getmembers()[17].offset_data, tar.getmembers()[17].offset
    whole = path.read_bytes()
    path.write_bytes(
        {
            "cut at a border": whole[:header],
            "cut in a header": whole[: header + 100],
            "cut in data": whole[: offset + 100],
            "zeroed": whole[:header] + bytes(512) + whole[offset:],
            "flipped": whole[: header + 5] + bytes([whole[header + 5] ^ 4]) + whole[header + 6 :],
            "compressed": b"\x1f\x8b" + whole,
            "text": b"to be sent later",
        }[kind]
    )
    assert index(tmp_path, "--val", 1) == 2
    assert f"and 1 tars cannot be used, and none is skipped silently ({tmp_path}" in (err := capsys.readouterr().err)
    assert "lists all): 0.tar: " in err
    assert index(tmp_path, "--val", 1, "--on_error", "skip") == 0
    (skipped,) = read_index(tmp_path).skipped
    assert (skipped.key, skipped.source) == ("", "0.tar") and len(read_index(tmp_path)) == COUNT
    assert [problem for file in verify(tmp_path, 1) for problem in file.problems] == []


def test_damage_after_indexing_is_found(samples, tmp_path):
    path = write_tar(tmp_path / "0.tar", members_of(samples))
    assert index(tmp_path, "--val", 1) == 0
    found, whole, choose = read_index(tmp_path), path.read_bytes(), random.Random(1)
    places = [choose.randrange(len(whole)) for _ in range(20)]
    places.append(found.member(3, "gt").offset + 40)
    for place in places:
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 16]) + whole[place + 1 :])
        problems = look.problems_of(next(looks_of(found, with_lines=False)))
        assert problems[0] == "0.tar: has another sha256 than the index says"
    assert any(found.member(3, "gt").name in problem for problem in problems)


def test_folders_that_cannot_be_indexed_are_refused_in_words(samples, shards, tmp_path):
    for folder, words in (
        (shards, "has an index.json that `refiner-ds index` did not write"),
        (tmp_path, "holds no .tar"),
    ):
        with pytest.raises(UserError, match=words):
            list_tars(folder, 1)
    (tmp_path / "0.tar.gz").write_bytes(b"")
    with pytest.raises(UserError, match=r"holds 1 compressed tars \(0.tar.gz\).*decompress them"):
        list_tars(tmp_path, 1)
