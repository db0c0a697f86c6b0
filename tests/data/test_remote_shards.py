"""Shards at a URL, read like those in a folder: through the cache, mended there, named where the source broke."""

import json
import os
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from refiner_ds.cli import main
from refiner_ds.data.buckets import parse_buckets
from refiner_ds.data.index import FILE_NAME, RECORDS_NAME, SOURCES_NAME, read_index
from refiner_ds.data.manifest import VIEWS
from refiner_ds.data.samples import Samples
from refiner_ds.data.shards import BrokenSample, Shards, open_shards
from refiner_ds.data.store.cache import CacheOptions
from refiner_ds.data.stream import Stream
from refiner_ds.errors import UserError
from tests.data.store.shard_files import kinds_in
from tests.data.store.web_server import Fault, Web
from tests.data.test_stream import assert_equal

BUCKETS = parse_buckets("1.0:64x64,1.5:96x64")


def files_of(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.fixture
def web(shards):
    with Web(files_of(shards)) as server:
        yield server


@pytest.fixture
def cache(shards, tmp_path) -> CacheOptions:
    """Room for the index and two shards."""
    sizes = sorted(path.stat().st_size for path in shards.iterdir())
    return CacheOptions(tmp_path / "cache", sum(sizes[-2:]) + 40_000)


def open_files() -> list[str]:
    """Paths of the files that this process has open."""
    return [os.path.realpath(f"/dev/fd/{number}") for number in os.listdir("/dev/fd")]


def assert_same_bytes(found: Shards, expected: Shards) -> None:
    for row in range(len(expected.index)):
        for view in VIEWS:
            assert found.read(row, view) == expected.read(row, view)


def test_every_picture_comes_as_from_the_folder_with_and_without_a_cache(web, shards, cache):
    local = open_shards(str(shards))
    for options in (cache, None):
        told: list[str] = []
        remote = open_shards(web.url, options, tell=told.append)
        assert remote.index.digest == local.index.digest and isinstance(remote.index.records, np.memmap)
        if options:
            assert_same_bytes(remote, local)
        assert_same_bytes(pickle.loads(pickle.dumps(remote)), local)
        assert not any(name.startswith(str(cache.folder)) for name in open_files() if name.endswith(".shard"))
        assert len(told) == (options is None)
        remote.close()
    assert told[0].startswith(f"shards {web.url} are read without a cache, each picture") and told[0].endswith(".")
    copy = remote.index.folder
    assert copy.exists()
    del remote
    assert not copy.exists(), "without a cache, the copy of the index goes with it"


def test_scenes_are_known_from_there_too(dataset, tmp_path):
    path = dataset(tmp_path / "pictures", [(64, 64)] * 4)
    content = json.loads(path.read_text())
    path.write_text(json.dumps({**content, "scene": ["a", "b", "", "c"]}))
    assert main(["pack", str(path), str(tmp_path / "shards"), "--val", "0"]) == 0
    told: list[str] = []
    local = open_shards(str(tmp_path / "shards"))
    keys = [local.index.key(row) for row in range(4)]
    expected = [dict(zip(keys, local.scenes(range(4), told.append), strict=True))[key] for key in sorted(keys)]
    assert expected == ["a", "b", "", "c"]
    files = files_of(tmp_path / "shards")
    with Web(files) as server:
        assert open_shards(server.url).scenes([3, 1], told.append) == local.scenes([3, 1], told.append)
    assert not told
    with Web({**files, SOURCES_NAME: files[SOURCES_NAME].replace(b'"a"', b'"b"')}) as server:
        assert open_shards(server.url).scenes([0, 1], told.append) == ["", ""]
    with Web({name: file for name, file in files.items() if name != SOURCES_NAME}) as server:
        assert open_shards(server.url).scenes([2], told.append) == [""]
    assert "sources.jsonl cannot be used (it has another sha256 than the index says), so that no scenes" in told[0]
    assert told[1].startswith(f"{server.url}/sources.jsonl cannot be used (") and "404" in told[1]


@pytest.mark.parametrize("workers", [0, 1])
def test_batches_are_those_of_the_folder_and_the_limit_holds(web, shards, cache, workers):
    found = []
    for opened in (open_shards(str(shards)), open_shards(web.url, cache)):
        samples = Samples.of(opened, "train", BUCKETS, 3, random_flip=True)
        order = samples.order(4, window_shards=2)
        opened.plan(order, range(8), range(4), "run", leads=True)
        found.append(list(Stream(samples, order, 2, 0, 1, workers).batches(0, 8)))
        opened.close()
    assert_equal(*found)
    held = sum(path.stat().st_size for path in cache.folder.rglob("*") if path.is_file())
    assert held <= cache.limit_bytes and kinds_in(cache.folder)[".shard"] == 2


def test_the_index_is_copied_once_for_a_node_and_one_that_changed_is_noticed(
    web, cache, dataset, pack_dataset, tmp_path
):
    for _ in range(3):
        first = open_shards(web.url, cache)
    assert (web.times(FILE_NAME), web.times(RECORDS_NAME)) == (3, 1)
    pack_dataset(dataset(tmp_path / "new", [(64, 48)] * 3, seed=9), tmp_path / "packed")
    web.files = files_of(tmp_path / "packed")
    second = open_shards(web.url, cache)
    assert second.index.digest == read_index(tmp_path / "packed").digest != first.index.digest
    assert_same_bytes(second, open_shards(str(tmp_path / "packed")))
    copy = second.index.folder / RECORDS_NAME
    copy.write_bytes(copy.read_bytes()[:-1] + b"?")
    assert open_shards(web.url, cache).index.digest == second.index.digest, "a damaged copy is made anew"


def test_an_index_that_is_wrong_where_it_lies_is_named_by_its_address(web, cache):
    whole = dict(web.files)
    for name, content, words in (
        (FILE_NAME, b"{", f"{web.url}/index.json is not JSON"),
        (
            FILE_NAME,
            whole[FILE_NAME].replace(b'"bytes": ', b'"bytes": 1'),
            f"{web.url}/index.json is not what pack wrote",
        ),
        (
            RECORDS_NAME,
            whole[RECORDS_NAME][:-1] + b"?",
            f"{web.url}/samples.npy has another sha256 than index.json says",
        ),
    ):
        web.files = {**whole, name: content}
        for options in (cache, None):
            with pytest.raises(UserError, match=words):
                open_shards(web.url, options)
    web.files = {}
    with pytest.raises(UserError, match=f"{web.url}/index.json is answered with 404"):
        open_shards(web.url)


def test_a_shard_that_is_damaged_in_the_cache_is_mended(web, shards, cache):
    remote, local = open_shards(web.url, cache), open_shards(str(shards))
    row = int(local.index.rows("train")[0])
    expected, member = local.read(row, "gt"), local.index.member(row, "gt")
    assert remote.read(row, "gt") == expected
    asked = web.times(member.shard)
    for damage in (lambda file: file.write(b"damage"), lambda file: file.truncate(member.offset + 1)):
        (path,) = (path for path in cache.folder.glob("*.shard") if path.stat().st_size)
        with path.open("r+b") as file:
            file.seek(member.offset + 9)
            damage(file)
        asked += 1
        assert remote.read(row, "gt") == expected and web.times(member.shard) == asked
        assert kinds_in(cache.folder)[".shard"] == 1


def test_a_sample_that_is_damaged_at_the_source_is_named_and_the_others_of_its_shard_are_read(web, shards, cache):
    local = open_shards(str(shards))
    rows = [int(row) for row in local.index.rows("train")]
    member = local.index.member(rows[0], "gt")
    content = bytearray(web.files[member.shard])
    content[member.offset + member.size // 2] ^= 1
    web.files[member.shard] = bytes(content)
    for options in (cache, None):
        remote = open_shards(web.url, options)
        for _ in range(2):
            with pytest.raises(BrokenSample) as caught:
                remote.read(rows[0], "gt")
            assert str(caught.value) == (
                f"sample {member.name} in {web.url}/{member.shard} cannot be used: has other bytes than the index says "
                f"(crc32c); `refiner-ds verify {web.url}` lists all that is broken."
            )
        for row in rows:
            assert remote.read(row, "cond") == local.read(row, "cond")
    whole = f"bytes=0-{len(content) - 1}"
    assert web.asked.count((member.shard, whole)) == 3, "it is not downloaded again and again"


def test_a_cache_that_is_too_small_for_the_windows_is_told_by_the_one_that_leads(web, cache):
    told: list[str] = []
    for window, tell, leads in ((1, told.append, True), (2, told.append, False), (2, None, True)):
        remote = open_shards(web.url, cache, tell=tell)
        order = Samples.of(remote, "train", BUCKETS, 0).order(4, window)
        remote.plan(order, range(9), range(4), "run", leads)
        remote.close()
    assert told == []
    remote = open_shards(web.url, cache, tell=told.append)
    remote.plan(Samples.of(remote, "train", BUCKETS, 0).order(4), range(9), range(4), "run", True)
    remote.close()
    assert len(told) == 1 and told[0].startswith(f"--shard_cache_limit {cache.limit_bytes} bytes are fewer than the ")


def test_what_cannot_be_had_is_no_broken_sample(web, cache):
    remote = open_shards(web.url, cache)
    web.fail([Fault("status", 403)] * 9)
    with pytest.raises(UserError, match="403 Forbidden") as caught:
        remote.read(0, "gt")
    assert not isinstance(caught.value, BrokenSample)


def test_no_credentials_are_told(web, cache):
    address = web.url.replace("http://", "http://me:secret@") + "/?signature=secret"
    remote = open_shards(address, cache)
    assert remote.location == web.url
    with pytest.raises(UserError) as caught, remote.naming(0, "gt"):
        raise OSError("broken")
    assert "secret" not in str(caught.value)


def test_who_reads_a_folder_does_not_pay_for_what_reads_a_url():
    program = (
        "import sys, refiner_ds.data.samples; print(*{'torch', 'requests', 'fsspec', 'asyncio'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""
