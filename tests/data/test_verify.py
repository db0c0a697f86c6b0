"""Verifying: every kind of damage is found, and named by shard and key."""

import random
import shutil
from pathlib import Path

import numpy as np
import pytest

from refiner_ds.cli import main
from refiner_ds.data.index import read_index, write_index
from refiner_ds.data.packing import look
from refiner_ds.data.verify import looks_of, verify
from refiner_ds.errors import UserError

FLIPS = 200


def problems_of(folder: Path, workers: int = 1) -> list[str]:
    return [problem for file in verify(folder, workers) for problem in file.problems]


@pytest.fixture
def copied(shards, tmp_path):
    """A copy of the shared shards to be damaged, as an index."""
    shutil.copytree(shards, tmp_path / "copied")
    return read_index(tmp_path / "copied")


def overwrite(path: Path, offset: int, change: bytes) -> None:
    with path.open("r+b") as file:
        file.seek(offset)
        file.write(change)


@pytest.mark.parametrize("workers", [1, 2])
def test_sound_shards_have_no_problems(shards, workers):
    told = []
    found = list(verify(shards, workers, lambda *all: told.append(all)))
    assert len(found) > 4 and all(file.problems == [] for file in found)
    sizes = sum(path.stat().st_size for path in shards.glob("*.tar"))
    assert sum(file.samples for file in found) == 24 and sum(file.bytes for file in found) == sizes
    assert told[-1] == ("verifying", 24, 24, sizes)


DAMAGES = {
    "cut at a member's border": (lambda whole, at, size: whole[: at - 512], "ends after 0 of"),
    "cut in a header": (lambda whole, at, size: whole[: at - 300], "ends after 0 of"),
    "header zeroed": (lambda whole, at, size: whole[: at - 512] + bytes(512) + whole[at:], "the tar header of"),
    "header byte flipped": (lambda whole, at, size: flipped(whole, at - 500), "the tar header of"),
    "bad size field": (lambda whole, at, size: whole[: at - 388] + b"zzz" + whole[at - 385 :], "the tar header of"),
    "cut in data": (lambda whole, at, size: whole[: at + 100], "ends after 100 of"),
    "cut before the padding": (lambda whole, at, size: whole[: at + size], "what follows"),
    "one bit of data": (
        lambda whole, at, size: flipped(whole, at + size // 2),
        "has another crc32c than the index says",
    ),
    "one bit of padding": (lambda whole, at, size: flipped(whole, at + size), "what follows"),
    "data zeroed": (lambda whole, at, size: whole[:at] + bytes(size) + whole[at + size :], "is no readable picture"),
}
"""By kind: what it makes of a tar whose member of `size` bytes lies at `at`, and what is said of that member."""


def flipped(content: bytes, place: int, bit: int = 0) -> bytes:
    return content[:place] + bytes([content[place] ^ (1 << bit)]) + content[place + 1 :]


@pytest.mark.parametrize("kind", DAMAGES)
def test_a_damaged_tar_is_found_with_shard_and_key(copied, kind):
    shard, name, at, size, _ = copied.member(2, "gt")
    path = copied.folder / shard
    damage, words = DAMAGES[kind]
    assert size % 512, "there is padding"
    whole = path.read_bytes()
    path.write_bytes(damage(whole, at, size))
    found = problems_of(copied.folder)
    length = path.stat().st_size
    about = "has another sha256 than the index says"
    assert found[0] == f"{shard}: {about if length == len(whole) else f'has {length} bytes instead of {len(whole)}'}"
    assert any(text.startswith(f"{shard}: ") and name in text and words in text for text in found), found
    assert all(text.startswith(f"{shard}: ") for text in found)
    path.write_bytes(whole)
    assert problems_of(copied.folder) == []


def key_at(copied, shard: int, place: int) -> str | None:
    """The key whose members, headers and padding hold a byte of a shard; None for its end mark."""
    rows = np.flatnonzero(copied.records["shard"] == shard)
    row = rows[copied.records["offset"][rows, 0] - 512 <= place][-1]
    return None if place >= copied.shards[shard].bytes - 1024 else copied.key(int(row))


def test_any_bit_that_flips_anywhere_is_found_with_shard_and_key(copied):
    """All over one header, and at random places of all shards."""
    choose = random.Random(0)
    header = int(copied.records["offset"][1, 0]) - 512
    places = [(int(copied.records["shard"][1]), header + i) for i in range(0, 512, 5)]
    for _ in range(FLIPS):
        shard = choose.randrange(len(copied.shards))
        places.append((shard, choose.randrange(copied.shards[shard].bytes)))
    looks = list(looks_of(copied, with_lines=True))
    wholes = [(copied.folder / shard.name).read_bytes() for shard in copied.shards]
    for shard, place in places:
        path = copied.folder / copied.shards[shard].name
        path.write_bytes(flipped(wholes[shard], place, choose.randrange(8)))
        found = look.problems_of(looks[shard])
        path.write_bytes(wholes[shard])
        assert all(text.startswith(f"{path.name}: ") for text in found)
        assert found[0] == f"{path.name}: has another sha256 than the index says"
        assert (key_at(copied, shard, place) or "its end mark") in " ".join(found[1:]), (path.name, place)


def test_missing_swapped_and_strange_shards_are_named(copied):
    first, second, third = (copied.folder / shard.name for shard in copied.shards[:3])
    for source, target in ((first, "kept"), (second, first), ("kept", second)):
        (copied.folder / source).rename(copied.folder / target)
    third.unlink()
    shutil.copy(first, copied.folder / "copy.tar")
    found = problems_of(copied.folder)
    for path in (first, second):
        assert any(text.startswith(f"{path.name}: has ") for text in found)
        assert any(text.startswith(f"{path.name}: none of its ") for text in found)
    assert f"{third.name} is missing" in found and "copy.tar lies beside the shards and is in no index" in found
    assert len(found) < 10


def test_a_line_of_the_sources_that_is_edited_is_found(copied):
    path = copied.folder / "sources.jsonl"
    path.write_text(path.read_text().replace("render/003.png", "render/004.png"))
    assert problems_of(copied.folder) == ["sources.jsonl has another sha256 than the index says"]
    path.unlink()
    assert problems_of(copied.folder) == ["sources.jsonl cannot be read (No such file or directory)"]


def swap_views(record) -> None:
    for field in ("offset", "size", "crc"):
        record[field] = record[field][[1, 0, 2]]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (swap_views, "the tar header of {key}.render.png is damaged"),
        (lambda record: record.__setitem__("width", 97), "{key}.render.png is 96x64, not 97x64"),
        (lambda record: record["crc"].__setitem__(1, 7), "{key}.gt.png has another crc32c than the index says"),
        (lambda record: record["offset"].__setitem__(2, record["offset"][2] + 512), "header of {key}.cond.png"),
        (lambda record: record.__setitem__("key", b"00000099"), "00000099.json is not what was packed"),
    ],
)
def test_an_index_that_was_made_to_agree_with_itself_is_held_against_the_tars(copied, change, words):
    records = np.array(copied.records)
    row = int(np.flatnonzero(records["width"] == 96)[0])
    change(records[row])
    lines = (copied.folder / "sources.jsonl").read_text().splitlines()
    write_index(copied.folder, copied.shards, records, lines, copied.datasets)
    found = problems_of(copied.folder)
    assert any(words.format(key=copied.key(row)) in text for text in found), found


def test_an_edited_index_is_refused_before_anything_is_read(copied):
    path = copied.folder / "index.json"
    path.write_text(path.read_text().replace('"split": "val"', '"split": "train"'))
    with pytest.raises(UserError, match="its sum differs"):
        problems_of(copied.folder)


def test_the_command_counts_and_exits_with_1_where_something_is_broken(copied, capsys):
    assert main(["verify", str(copied.folder), "--workers", "1"]) == 0
    shards = len(copied.shards)
    assert f": {shards} of {shards} shards sound, 0 problems; 24 samples, " in capsys.readouterr().out
    member = copied.member(0, "cond")
    overwrite(copied.folder / member.shard, member.offset + 50, b"x")
    assert main(["verify", str(copied.folder), "--workers", "2"]) == 1
    output = capsys.readouterr()
    assert f": {shards - 1} of {shards} shards sound, " in output.out
    assert f"{member.shard}: {member.name} has another crc32c" in output.err
    with pytest.raises(UserError, match="--workers 0 leaves nobody to do the work; give 1 or more"):
        problems_of(copied.folder, workers=0)
