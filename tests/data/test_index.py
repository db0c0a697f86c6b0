"""The index: refused wherever it is not what was written, and cheap however many samples it has."""

import json
import pickle
import shutil
import subprocess
import sys

import numpy as np
import pytest

from refiner_ds.data.index import read_index
from refiner_ds.errors import UserError


@pytest.fixture
def copied(shards, tmp_path):
    """A copy of the index of the shared shards to be damaged."""
    shutil.copytree(shards, tmp_path / "copied", ignore=shutil.ignore_patterns("*.tar"))
    return tmp_path / "copied"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        *(
            ({"version": version}, rf"index.json has version {version} and this program reads 2; pack")
            for version in (1, 3)
        ),
        ({"version": None}, "has version None"),
        (
            {"digest": "0" * 16},
            r"index.json is not what pack wrote \(its sum differs\): it was edited or damaged; pack",
        ),
        *(
            ({name: value}, "its sum differs")
            for name in ("shards", "skipped", "sum")
            for value in (None, 5, [{}], "x")
        ),
    ],
)
def test_an_index_that_is_not_what_pack_wrote_is_refused(copied, change, words):
    path = copied / "index.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    with pytest.raises(UserError, match=words):
        read_index(copied)


def leaves(content, path=()):
    """Every place of a number or text in JSON."""
    items = content.items() if isinstance(content, dict) else enumerate(content) if isinstance(content, list) else None
    if items is None:
        yield path
        return
    for key, value in items:
        yield from leaves(value, (*path, key))


def test_an_edit_anywhere_in_the_index_is_refused(copied):
    whole = json.loads((copied / "index.json").read_text())
    places = list(leaves(whole))
    assert len(places) > 30
    for *path, last in places:
        content = json.loads(json.dumps(whole))
        parent = content
        for key in path:
            parent = parent[key]
        parent[last] = parent[last] + 1 if isinstance(parent[last], int | float) else f"{parent[last]}x"
        (copied / "index.json").write_text(json.dumps(content))
        with pytest.raises(UserError, match=r"index\.json (is not what|has version)"):
            read_index(copied)


def test_records_that_are_not_those_of_the_index_are_refused(copied):
    path = copied / "samples.npy"
    content = bytearray(path.read_bytes())
    for place in (0, 90, len(content) // 2, len(content) - 1):
        content[place] ^= 4
        path.write_bytes(content)
        with pytest.raises(
            UserError, match=r"samples.npy has another sha256 than index.json says.*copy it anew, or pack"
        ):
            read_index(copied)
        content[place] ^= 4
    path.unlink()
    with pytest.raises(UserError, match=r"has no readable samples.npy \(No such file.*copy the whole folder, or pack"):
        read_index(copied)


def test_another_process_maps_the_records_instead_of_getting_a_copy(shards):
    index = read_index(shards)
    content = pickle.dumps(index)
    assert len(content) < index.records.nbytes * 2 + 10_000 and index.records[3]["key"] not in content
    again = pickle.loads(content)
    assert np.array_equal(again.records, index.records) and again.digest == index.digest
    assert isinstance(again.records, np.memmap) and again.member(3, "gt") == index.member(3, "gt")


MILLION = """
import resource, sys, time
from pathlib import Path
import numpy as np
from refiner_ds.data.index import Dataset, Shard, read_index, record_type, write_index

folder, count, shards = Path(sys.argv[1]), 1_000_000, 4000
if sys.argv[2] == "write":
    records = np.zeros(count, record_type(8))
    records["key"] = np.char.zfill(np.arange(count).astype("S8"), 8)
    records["shard"] = np.repeat(np.arange(shards), count // shards)
    records["offset"] = np.arange(3 * count).reshape(count, 3)
    parts = [Shard(f"train-{i:06d}.tar", "train", 1 << 29, f"{i:064x}", count // shards) for i in range(shards)]
    write_index(folder, parts, records, ("{}" for _ in range(count)), [Dataset("a", 1.0, "a.json", count)])
else:
    def memory():
        return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize() / 1e6
    before, start = memory(), time.perf_counter()
    index = read_index(folder)
    member = index.member(777_777, "gt")
    seconds = time.perf_counter() - start
    rows = index.rows("train")
    assert len(rows) == count and int(index.records["offset"].sum()) == sum(range(3 * count))
    assert member.name == "00777777.gt.png"
    status = Path("/proc/self/status").read_text()
    peak = int(status.partition("VmHWM:")[2].split()[0]) / 1e3
    print(seconds, memory() - before, peak - before)
"""


@pytest.mark.slow
def test_a_million_samples_are_there_in_a_second_and_take_little_memory(tmp_path):
    for what in ("write", "read"):
        command = [sys.executable, "-c", MILLION, str(tmp_path), what]
        done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
        assert done.returncode == 0, done.stderr
    seconds, grown, peak = map(float, done.stdout.split())
    print(f"{seconds:.2f} s, {grown:.0f} MB more, {peak:.0f} MB at the most")
    assert seconds < 1 and max(grown, peak) < 300
