"""Shards behind http: every fault of a server is survived, or told in one sentence."""

import hashlib
import re
import threading
import time
import warnings
from pathlib import Path

import pytest

from refiner_ds.data.store import transfer
from refiner_ds.data.store.cache import Cache, CacheOptions
from refiner_ds.data.store.contract import StoredFile
from refiner_ds.data.store.http import HttpSource
from refiner_ds.data.store.opening import open_store
from refiner_ds.data.store.remote import RemoteStore
from refiner_ds.data.store.retry import Retry
from refiner_ds.errors import UserError
from tests.data.store.shard_files import QUICK, kinds_in, make_files, shards_of
from tests.data.store.web_server import Fault, Web

SIZE = 1_000_003
FAULTS = {
    "503": Fault("status", 503),
    "500": Fault("status", 500),
    "429": Fault("status", 429),
    "connection dropped": Fault("drop"),
    "truncated": Fault("cut"),
    "wrong Content-Range": Fault("shift"),
    "stalled": Fault("stall", 5),
}
SAID = {
    "503": "the server answers 503 Service Unavailable",
    "500": "the server answers 500 Internal Server Error",
    "429": "the server answers 429 Too Many Requests",
    "connection dropped": "the connection broke in the middle",
    "truncated": r"only \d+ of \d+ bytes came",
    "wrong Content-Range": r"the server sends bytes \d+-\d+/\d+ for bytes \d+-\d+",
    "stalled": "nothing came for 1 s",
}


class ThreeAttempts(Retry):
    """Gives up by count and not by the clock, so that the last attempt ends as the fault says on a slow machine too."""

    def wait_before(self, attempt: int, chance: float) -> float:
        return 0.01 if attempt < 3 else 2 * self.deadline


@pytest.fixture
def web():
    with Web(make_files(3, SIZE)) as server:
        yield server


def store_of(
    web: Web, folder: Path | None, retry: Retry = QUICK, limit: int = 10 * SIZE, silent_seconds: float = 0.3, **more
) -> RemoteStore:
    """A store that gives up a silent connection soon."""
    cache = Cache(CacheOptions(folder, limit)) if folder else None
    return RemoteStore(web.url, HttpSource(web.url, silent_seconds), cache, retry, **more)


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_that_passes_is_survived_by_fetch_and_read(web, tmp_path, fault):
    shard = shards_of(web.files)[0]
    store = store_of(web, tmp_path)
    web.fail([FAULTS[fault]] * 3)
    path = store.fetch(shard)
    assert path and path.read_bytes() == web.files[shard.name]
    assert not web.faults and kinds_in(tmp_path) == {".shard": 1}
    web.fail([FAULTS[fault]] * 3)
    assert store.read(shard.name, 1000, 5000) == web.files[shard.name][1000:6000]
    assert not web.faults and web.times(shard.name) == 8


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_that_stays_is_told_in_one_sentence(web, tmp_path, fault):
    shard = shards_of(web.files)[1]
    store = store_of(web, tmp_path, ThreeAttempts(), silent_seconds=1 if fault == "stalled" else 30)
    web.fail([FAULTS[fault]] * 6)
    for attempt in (lambda: store.fetch(shard), lambda: store.read(shard.name, 10, SIZE - 10)):
        with pytest.raises(UserError) as caught:
            attempt()
        words = str(caught.value)
        first = 0 if f"bytes 0-{SIZE - 1}," in words else 10
        assert words.startswith(f"{web.url}/{shard.name}, bytes {first}-{SIZE - 1}, could not be read in ")
        assert "in 3 attempts over" in words and "\n" not in words
        assert words.endswith("then start the same command again.")
        assert re.search(SAID[fault], words)
    assert kinds_in(tmp_path) == {}, "the space of what failed is free again"


@pytest.mark.parametrize("status", [401, 403, 404, 410, 416])
def test_what_will_not_get_better_is_asked_for_once(web, tmp_path, status):
    shard = shards_of(web.files)[0]
    store = store_of(web, tmp_path)
    remedy = {401: "credentials", 403: "credentials", 416: "copy it there again"}.get(status, "check the path")
    calls = [lambda: store.fetch(shard), lambda: store.read(shard.name, 0, 9), lambda: store.read_small("index.json")]
    for call in calls:
        web.fail([Fault("status", status)])
        with pytest.raises(UserError, match=f"{web.url}/.* is answered with {status} .*{remedy}.*[.]$"):
            call()
    assert len(web.asked) == 3 and kinds_in(tmp_path) == {}


def test_retry_after_is_kept(web, tmp_path):
    store, shard = store_of(web, tmp_path), shards_of(web.files)[0]
    web.fail([Fault("status", 429, {"Retry-After": "1"}), Fault("status", 503, {"Retry-After": "1"})])
    started = time.monotonic()
    assert store.fetch(shard)
    assert 2 <= time.monotonic() - started < 10
    web.fail([Fault("status", 429, {"Retry-After": "3600"})])
    with pytest.raises(UserError, match=r"1 attempt.*429 Too Many Requests, and asks to wait 3600 s more"):
        store.read(shard.name, 0, 9)


def test_a_broken_transfer_goes_on_where_it_broke(web, tmp_path):
    shard = shards_of(web.files)[0]
    web.fail([Fault("drop"), Fault("drop")])
    assert store_of(web, tmp_path).fetch(shard)
    firsts = [int(part.removeprefix("bytes=").partition("-")[0]) for _, part in web.asked]
    assert firsts[0] == 0 and SIZE // 2 - 70_000 < firsts[1] <= SIZE // 2 and firsts[1] + SIZE // 6 < firsts[2] < SIZE


def test_corrupt_bytes_are_downloaded_again_and_given_up_after_three_times(web, tmp_path):
    first, second, _ = shards_of(web.files)
    store = store_of(web, tmp_path)
    web.fail([Fault("corrupt"), Fault("corrupt")])
    path = store.fetch(first)
    assert path and hashlib.sha256(path.read_bytes()).hexdigest() == first.sha256 and web.times(first.name) == 3
    web.fail([Fault("corrupt")] * 3)
    with pytest.raises(UserError, match=f"{second.name} could not be read in 3 attempts.*its sha256 is .*nobody"):
        store.fetch(second)
    assert web.times(second.name) == 3 and kinds_in(tmp_path) == {".shard": 1}


@pytest.mark.parametrize("faults", [[], [Fault("drop")] * 5, [Fault("status", 503), Fault("cut"), Fault("shift")] * 2])
def test_a_large_shard_comes_over_several_connections(web, tmp_path, monkeypatch, faults):
    monkeypatch.setattr(transfer, "SPAN", 50_000)
    web.latency = 0.02
    web.fail(faults)
    told = []
    store = store_of(web, tmp_path, progress=lambda what, done, total: told.append((what, done, total)))
    first, second, _ = shards_of(web.files)
    for shard in (first, second):
        path = store.fetch(shard)
        assert path and path.read_bytes() == web.files[shard.name]
    assert web.most_at_once == transfer.CONNECTIONS and web.times(second.name) == -(-SIZE // 50_000)
    assert told[-1] == (f"downloading {second.name}", SIZE, SIZE)


def test_one_refused_span_ends_a_download_at_once(web, tmp_path, monkeypatch):
    monkeypatch.setattr(transfer, "SPAN", 50_000)
    slow = Retry(first_wait=30, longest_wait=60, deadline=300)
    store = store_of(web, tmp_path, slow)
    shard = shards_of(web.files)[0]
    store.read(shard.name, 0, 9)  # now it knows that there are ranges
    web.fail([*[Fault("status", 503)] * 3, Fault("status", 403)])
    started = time.monotonic()
    with pytest.raises(UserError, match="403 Forbidden"):
        store.fetch(shard)
    assert time.monotonic() - started < 10 and kinds_in(tmp_path) == {}


@pytest.mark.parametrize("span", [50_000, 1 << 30])
def test_a_server_without_ranges_serves_too(web, tmp_path, monkeypatch, span):
    monkeypatch.setattr(transfer, "SPAN", span)
    web.has_ranges = False
    shard, other, _ = shards_of(web.files)
    store = store_of(web, tmp_path)
    web.fail([Fault("drop"), Fault("status", 503)])
    path = store.fetch(shard)
    assert path and path.read_bytes() == web.files[shard.name]
    assert store.fetch(other) and web.times(other.name) == 1
    with pytest.warns(UserWarning, match=r"train-000000.tar comes from a server that sends whole files only.*cache"):
        assert store.read(shard.name, 70_000, 9_000) == web.files[shard.name][70_000:79_000]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert store.read(shard.name, SIZE - 9, 9) == web.files[shard.name][-9:]


def test_without_a_cache_everything_is_read_by_ranges(web):
    store = open_store(web.url, retry=QUICK)
    shard = shards_of(web.files)[0]
    store.plan([shard], lambda name: 1.0)
    store.prefetch([shard])
    assert store.fetch(shard) is None and web.asked == [] and store.recheck(shard)
    assert store.read(shard.name, 5, 0) == b"" and store.read(shard.name, 5, 7) == web.files[shard.name][5:12]
    store.close()


def test_small_files_come_whole(web):
    web.files["index.json"] = b"{}" * 500_000
    web.fail([Fault("status", 503), Fault("drop"), Fault("stall", 5)])
    assert store_of(web, None).read_small("index.json") == web.files["index.json"] and not web.faults


def test_a_signed_address_keeps_its_query_and_never_shows_it(web, tmp_path):
    address = web.url.replace("http://", "http://me:secret@") + "/?signature=secret"
    store = open_store(address, CacheOptions(tmp_path, 10 * SIZE), Retry(first_wait=0.01, deadline=0.1))
    assert store.read("train-000000.tar", 0, 9) == web.files["train-000000.tar"][:9]
    assert web.paths == ["/set/train-000000.tar?signature=secret"]
    web.fail([Fault("status", 503)] * 99)
    with pytest.raises(UserError) as caught:
        store.read("train-000000.tar", 0, 9)
    web.faults.clear()
    with pytest.raises(UserError) as missing:
        store.read_small("elsewhere")
    words = f"{caught.value} {missing.value}"
    assert f"{web.url}/train-000000.tar, bytes 0-8," in words and f"{web.url}/elsewhere" in words
    assert "secret" not in words


def test_a_server_that_is_not_there_is_told(tmp_path):
    with Web({}) as gone:
        url = gone.url.replace("/set", "/set?signature=secret")
    store = open_store(url, CacheOptions(tmp_path, SIZE), Retry(first_wait=0.01, deadline=0.2))
    with pytest.raises(UserError, match=r"attempts over \d s.*the connection failed \(Connection refused\)") as caught:
        store.read_small("index.json")
    assert "secret" not in str(caught.value)
    with pytest.raises(UserError, match="is no address that can be asked"):
        open_store("http:///set").read_small("index.json")
    with pytest.raises(UserError, match="the URL of the shards cannot be taken apart"):
        open_store("http://[oops/set")


def test_a_shorter_or_longer_file_than_the_index_says_is_no_shard(web, tmp_path):
    shard = shards_of(web.files)[0]
    quick = Retry(first_wait=0.01, deadline=0.1, slowest_rate=1e9)
    with pytest.raises(UserError, match=f"the server sends bytes 0-{SIZE - 1}/{SIZE} for bytes 0-{SIZE}"):
        store_of(web, tmp_path, quick).fetch(StoredFile(shard.name, SIZE + 1, shard.sha256))
    with pytest.raises(UserError, match=r"could not be read in 3 attempts.*its sha256 is"):
        store_of(web, tmp_path, quick).fetch(StoredFile(shard.name, SIZE - 1, shard.sha256))
    assert kinds_in(tmp_path) == {}


def test_threads_of_one_process_share_one_download(web, tmp_path):
    web.latency = 0.2
    store, shard = store_of(web, tmp_path), shards_of(web.files)[0]
    found = []
    threads = [threading.Thread(target=lambda: found.append(store.fetch(shard))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert len(found) == 8 and len(set(found)) == 1 and web.times(shard.name) == 1
