"""The cache under several processes: one download for all of them, a limit that holds at every moment, and kill -9."""

import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from refiner_ds.data.store.cache import CacheOptions
from refiner_ds.data.store.opening import open_store
from tests.data.store.shard_files import BLOCK, QUICK, bytes_in, kinds_in, make_files, shards_of
from tests.data.store.web_server import Fault, Web

REPO = Path(__file__).parents[3]
SIZE = 64 * BLOCK


@contextmanager
def reader(web: Web, folder: Path, limit: int, seed: int = 0, rounds: int = 1, seconds: float = 0.0):
    """A process that fetches all shards of a server; it never outlives the block."""
    told = {"url": web.url, "folder": str(folder), "limit": limit, "seed": seed, "rounds": rounds, "seconds": seconds}
    told["shards"] = [(shard.name, shard.bytes, shard.sha256) for shard in shards_of(web.files)]
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.data.store.reader"],
        cwd=REPO,
        env={**os.environ, "PYTHONPATH": str(REPO)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdin
        process.stdin.write(json.dumps(told))
        process.stdin.close()
        yield process
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def ways_of(process: subprocess.Popen) -> dict[str, int]:
    """What a reader counted, once it has ended well."""
    last = process.stdout.read().splitlines()[-1]
    assert process.wait(60) == 0
    return json.loads(last)


@contextmanager
def watched(folder: Path):
    """Yields the disk use of a folder as it is seen all the time while the block lasts."""
    seen: list[int] = []
    is_over = threading.Event()

    def watch() -> None:
        while not is_over.is_set():
            seen.append(bytes_in(folder))
            time.sleep(0.0005)

    folder.mkdir(exist_ok=True)
    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield seen
    finally:
        is_over.set()
        thread.join()


def wait_until(is_so, seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not is_so():
        assert time.monotonic() < end
        time.sleep(0.005)


def test_eight_processes_download_each_shard_once(tmp_path):
    with Web(make_files(6, SIZE), latency=0.05) as web, ExitStack() as stack:
        processes = [stack.enter_context(reader(web, tmp_path, 6 * SIZE, seed, rounds=2)) for seed in range(8)]
        assert [ways_of(process) for process in processes] == [{"whole": 12, "ranges": 0}] * 8
        assert sorted(name for name, _ in web.asked) == sorted(web.files)
    assert kinds_in(tmp_path) == {".shard": 6}


@pytest.mark.parametrize("room", [1, 2.5, 5])
def test_eight_processes_never_exceed_the_limit(tmp_path, room):
    limit = int(room * SIZE)
    with Web(make_files(10, SIZE), latency=0.002) as web, ExitStack() as stack, watched(tmp_path) as seen:
        processes = [
            stack.enter_context(reader(web, tmp_path, limit, seed, rounds=4, seconds=0.004)) for seed in range(8)
        ]
        ways = [ways_of(process) for process in processes]
    assert all(way["whole"] + way["ranges"] == 40 for way in ways) and sum(way["whole"] for way in ways) > 8
    assert max(seen) <= limit and max(seen) >= int(room) * SIZE and len(seen) > 200, (max(seen) / SIZE, len(seen))
    assert len(web.asked) > 20, "shards came and went"


def test_a_killed_downloader_is_replaced_and_leaves_nothing(tmp_path):
    with Web(make_files(1, SIZE)) as web:
        web.fail([Fault("stall", 60)])
        with reader(web, tmp_path, SIZE) as first:
            wait_until(lambda: len(web.asked) == 1)
            with reader(web, tmp_path, SIZE) as second:
                second.stdout.readline()  # it waits for the first
                time.sleep(0.3)
                assert kinds_in(tmp_path) == {".part": 1} and len(web.asked) == 1
                os.kill(first.pid, signal.SIGKILL)
                first.wait()
                # the limit is one shard: it would not fit beside what the dead one had reserved
                assert ways_of(second) == {"whole": 1, "ranges": 0}
        assert len(web.asked) == 2 and kinds_in(tmp_path) == {".shard": 1}


def test_one_that_is_killed_while_it_holds_a_shard_lets_it_go(tmp_path):
    with Web(make_files(2, SIZE)) as web, reader(web, tmp_path, SIZE, seconds=60) as first:
        wait_until(lambda: kinds_in(tmp_path) == {".shard": 1})
        held = next(shard for shard in shards_of(web.files) if (tmp_path / f"{shard.sha256}.shard").exists())
        other = next(shard for shard in shards_of(web.files) if shard != held)
        store = open_store(web.url, CacheOptions(tmp_path, SIZE), QUICK, warn=lambda text: None)
        assert store.fetch(other) is None
        os.kill(first.pid, signal.SIGKILL)
        first.wait()
        assert store.fetch(other) and kinds_in(tmp_path) == {".shard": 1}
        store.close()


def test_kills_at_any_moment_leave_the_cache_right(tmp_path):
    chance, limit = random.Random(5), 3 * SIZE
    with Web(make_files(8, SIZE), latency=0.005) as web, watched(tmp_path) as seen:
        for turn in range(6):
            with ExitStack() as stack:
                processes = [stack.enter_context(reader(web, tmp_path, limit, 10 * turn + i, 999)) for i in range(3)]
                for process in processes:
                    process.stdout.readline()
                time.sleep(chance.uniform(0.05, 0.3))
                for process in processes:
                    os.kill(process.pid, signal.SIGKILL)
        store = open_store(web.url, CacheOptions(tmp_path, limit), QUICK)
        assert set(kinds_in(tmp_path)) <= {".shard"}
        for shard in [*shards_of(web.files)] * 2:
            path = store.fetch(shard)
            assert path and path.read_bytes() == web.files[shard.name]
            store.release(shard)
        store.close()
    assert max(seen) <= limit and kinds_in(tmp_path) == {".shard": 3}
