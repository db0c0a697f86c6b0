"""Prefetching: in order, ahead of the readers, never at the cost of what is needed sooner, and it can be stopped."""

import math
import time

import pytest

from refiner_ds.data.store.cache import CacheOptions
from refiner_ds.data.store.opening import open_store
from refiner_ds.errors import UserError
from tests.data.store.shard_files import BLOCK, QUICK, bytes_in, kinds_in, make_files, shards_of
from tests.data.store.web_server import Fault, Web

SIZE = 16 * BLOCK


@pytest.fixture
def web():
    with Web(make_files(12, SIZE)) as server:
        yield server


@pytest.fixture
def shards(web):
    return shards_of(web.files)


@pytest.fixture
def opened(web, tmp_path):
    """`opened(room)` opens a store whose cache holds `room` shards."""
    stores = []

    def open_one(room: float):
        stores.append(open_store(web.url, CacheOptions(tmp_path, int(room * SIZE)), QUICK))
        return stores[-1]

    yield open_one
    for store in stores:
        store.close()


def wait_until(is_so, seconds: float = 20) -> None:
    end = time.monotonic() + seconds
    while not is_so():
        assert time.monotonic() < end
        time.sleep(0.01)


def names_of(web: Web) -> list[str]:
    return [name for name, _ in web.asked]


def test_it_brings_shards_in_order_and_stops_at_the_limit(opened, web, shards, tmp_path):
    store = opened(4)
    store.prefetch(shards[::-1])
    wait_until(lambda: kinds_in(tmp_path) == {".shard": 4})
    time.sleep(0.3)
    assert names_of(web) == [shard.name for shard in shards[:-5:-1]]
    assert store.fetch(shards[-1]) and len(web.asked) == 4


def test_an_epoch_ahead_of_its_reader_downloads_every_shard_once(opened, web, shards, tmp_path):
    """Four shards of room for twelve: each has to wait until one is used up, and none is evicted before its use."""
    store, now = opened(4), [0]
    places = {shard.name: place for place, shard in enumerate(shards)}
    store.plan(shards, lambda name: places[name] if places[name] >= now[0] else math.inf)
    store.prefetch(shards)
    for now[0], shard in enumerate(shards):
        wait_until(lambda: len(web.asked) >= min(now[0] + 3, 12))
        path = store.fetch(shard)
        assert path and path.read_bytes() == web.files[shard.name] and bytes_in(tmp_path) <= 4 * SIZE
        store.release(shard)
    assert names_of(web) == [shard.name for shard in shards]


def test_it_evicts_only_what_is_needed_later(opened, web, shards):
    store = opened(2)
    for shard in shards[:2]:
        store.fetch(shard)
        store.release(shard)
    uses = {shards[0].name: 5.0, shards[1].name: 20.0, shards[2].name: 10.0, shards[3].name: 15.0}
    store.plan(shards, lambda name: uses.get(name, math.inf))
    store.prefetch(shards[2:4])
    wait_until(lambda: len(web.asked) == 3)
    time.sleep(0.5)
    assert len(web.asked) == 3, "3 is used after 0 and 2"
    assert store.fetch(shards[0]) and store.fetch(shards[2]) and len(web.asked) == 3


def test_without_a_plan_it_evicts_nothing(opened, web, shards):
    store = opened(1)
    store.fetch(shards[0])
    store.release(shards[0])
    store.prefetch(shards)
    time.sleep(0.5)
    assert len(web.asked) == 1


def test_what_was_fetched_meanwhile_is_not_waited_for(opened, web, shards):
    store, now = opened(2), [0.0]
    uses = {shard.name: [float(number)] for number, shard in enumerate(shards)}
    store.plan(shards, lambda name: min((use for use in uses[name] if use >= now[0]), default=math.inf))
    assert store.fetch(shards[10]) and store.fetch(shards[11])
    store.prefetch(shards[:6])
    time.sleep(0.3)
    store.release(shards[10])
    store.release(shards[11])
    for shard in shards[:4]:
        store.fetch(shard)
        store.release(shard)
    now[0] = 4.0
    wait_until(lambda: {shard.name for shard in shards[4:6]} <= set(names_of(web)))
    assert all(web.times(shard.name) <= 1 for shard in shards)


def test_it_can_be_stopped_in_the_middle_of_a_download(opened, web, shards, tmp_path):
    store = opened(4)
    web.latency = 0.05
    web.fail([Fault("status", 503, {"Retry-After": "15"})])
    store.prefetch(shards)
    wait_until(lambda: len(web.asked) == 1)
    started = time.monotonic()
    store.close()
    assert time.monotonic() - started < 2 and kinds_in(tmp_path) == {} and len(web.asked) == 1
    store.prefetch(shards[5:6])
    wait_until(lambda: kinds_in(tmp_path) == {".shard": 1})
    store.prefetch(shards[7:8])  # in place of the one before
    wait_until(lambda: kinds_in(tmp_path) == {".shard": 2})


def test_what_it_is_bringing_is_brought_when_the_others_are_replaced(opened, web, shards, tmp_path):
    store = opened(4)
    web.latency = 0.3
    store.prefetch(shards[:4])
    wait_until(lambda: len(web.asked) == 1)
    store.prefetch(shards[6:8])
    wait_until(lambda: kinds_in(tmp_path) == {".shard": 3})
    time.sleep(0.4)
    assert names_of(web) == [shards[number].name for number in (0, 6, 7)]


def test_a_reader_waits_for_the_download_that_runs_ahead(opened, web, shards):
    store = opened(4)
    web.latency = 0.5
    store.prefetch(shards[:1])
    wait_until(lambda: len(web.asked) == 1)
    assert store.fetch(shards[0]).read_bytes() == web.files[shards[0].name] and len(web.asked) == 1


def test_a_download_that_fails_is_left_to_the_reader_who_is_told(opened, web, shards):
    store = opened(4)
    missing = web.files.pop(shards[0].name)
    store.prefetch(shards[:2])
    wait_until(lambda: web.times(shards[1].name) == 1)
    with pytest.raises(UserError, match="404 Not Found"):
        store.fetch(shards[0])
    web.files[shards[0].name] = missing
    assert store.fetch(shards[0])


def test_shards_that_never_fit_are_passed_over(opened, web, shards):
    store = opened(0.5)
    store.prefetch(shards)
    time.sleep(0.2)
    store.close()
    assert web.asked == []
