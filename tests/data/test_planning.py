"""The plan of a node: other processes read it, what comes next is fetched ahead of them, what comes last is evicted."""

import math
import pickle
import time
from pathlib import Path

import numpy as np
import pytest

from refiner_ds.data import planning
from refiner_ds.data.index import Shard
from refiner_ds.data.locality import shards_at
from refiner_ds.data.order import Order
from refiner_ds.data.planning import NextUses, Planner
from refiner_ds.data.store.cache import Cache, CacheOptions
from refiner_ds.data.store.opening import open_store
from tests.data.store.shard_files import BLOCK, QUICK, kinds_in, make_files, shards_of
from tests.data.store.test_prefetch import wait_until
from tests.data.store.web_server import Web

COUNT, SIZE, BATCH = 12, 16 * BLOCK, 4
ROOM = 5
PLAN = "run.plan"


@pytest.fixture
def web():
    with Web(make_files(COUNT, SIZE)) as server:
        yield server


@pytest.fixture
def shards(web) -> list[Shard]:
    return [Shard(one.name, "train", one.bytes, one.sha256, 8) for one in shards_of(web.files)]


@pytest.fixture
def node(web, shards, tmp_path, monkeypatch):
    """`node(order, steps)` starts a planner and its store, whose cache holds ROOM shards and the plan."""
    monkeypatch.setattr(planning, "POLL_SECONDS", 0.02)
    started = []

    def start(order: Order, steps: range):
        options = CacheOptions(tmp_path, ROOM * SIZE + 8 * BLOCK)
        store, cache = open_store(web.url, options, QUICK), Cache(options)
        uses = NextUses(tmp_path / PLAN, shards)
        store.plan(shards, uses)
        planner = Planner(order, steps, range(BATCH), shards, cache, uses, store.prefetch, None)
        started.extend([planner, store])
        return planner, store, uses

    yield start
    for one in started:
        one.close()


def order_of(window: int | None) -> Order:
    """Eight samples in each shard."""
    return Order(np.zeros(8 * COUNT, int), BATCH, 0, np.arange(8 * COUNT) // 8, window_shards=window)


def next_use(order: Order, number: int, steps: range) -> float:
    """By looking at every step."""
    return next((step for step in steps if number in shards_at(order, step, range(BATCH))), math.inf)


@pytest.mark.parametrize("window", [None, 1, 3])
def test_every_process_reads_at_each_step_when_a_shard_is_used_next(node, shards, tmp_path, window):
    order, steps = order_of(window), range(5, 140)  # five epochs and a half: the plan is made anew on the way
    planner, _, uses = node(order, steps)
    elsewhere = pickle.loads(pickle.dumps(uses))
    wait_until(lambda: (tmp_path / PLAN).exists())
    for step in (5, 6, 30, 31, 54, 79, 120, 139):
        planner.reach(step)
        expected = [next_use(order, number, range(step, steps.stop)) for number in range(COUNT)]
        known = [number for number in range(COUNT) if expected[number] <= step + order.steps_of(1)]
        for reader in (uses, elsewhere):
            wait_until(
                lambda reader=reader, known=known, expected=expected: (
                    reader.steps()[known].tolist() == [expected[n] for n in known]
                )
            )
            assert all(reader(shards[number].name) in (expected[number], math.inf) for number in range(COUNT))
    assert uses("unknown.tar") == math.inf


def test_without_a_plan_nobody_knows(shards, tmp_path):
    uses = NextUses(tmp_path / PLAN, shards)
    assert {uses(shard.name) for shard in shards} == {math.inf}
    (tmp_path / PLAN).write_bytes(b"")
    assert uses(shards[0].name) == math.inf


def test_a_tar_of_both_splits_is_used_when_either_is(shards, tmp_path):
    uses = NextUses(tmp_path / PLAN, [shards[0], shards[0], shards[1]])
    np.array([3, 1 << 40 | 7, 2 << 40 | 2, 2 << 40 | 9]).tofile(tmp_path / PLAN)
    assert (uses(shards[0].name), uses(shards[1].name)) == (7, 9)


def test_shards_are_there_before_they_are_read_and_none_comes_twice_in_an_epoch_of_windows(node, web, shards, tmp_path):
    order, steps = order_of(1), range(24)
    planner, store, _ = node(order, steps)
    waited = 0
    for step in steps:
        planner.reach(step)
        needed = [shards[number] for number in shards_at(order, step, range(BATCH))]
        end = time.monotonic() + 5
        while not {one.sha256 for one in needed} <= Cache(CacheOptions(tmp_path, 10**9)).shards():
            waited += 1
            assert time.monotonic() < end, "nobody has fetched it, and it has to come by the plan alone"
            time.sleep(0.01)
        for shard in needed:
            assert store.fetch(shard)
            store.release(shard)
    assert sorted(web.times(shard.name) for shard in shards) == [1] * COUNT
    assert waited < 24 * 5


def test_the_plan_is_cleared_away_once_its_run_has_ended(node, web, tmp_path):
    planner, store, _ = node(order_of(1), range(24))
    wait_until(lambda: (tmp_path / PLAN).exists() and ".shard" in kinds_in(tmp_path))
    Cache(CacheOptions(tmp_path, 10**9))
    assert (tmp_path / PLAN).exists()
    planner.close()
    store.close()
    Cache(CacheOptions(tmp_path, 10**9))
    assert not (tmp_path / PLAN).exists()


def test_a_cache_without_room_for_a_plan_says_so(shards, tmp_path):
    told: list[str] = []
    cache = Cache(CacheOptions(tmp_path, 100))
    uses = NextUses(tmp_path / PLAN, shards)
    planner = Planner(order_of(1), range(24), range(BATCH), shards, cache, uses, lambda shards: None, told.append)
    wait_until(lambda: bool(told))
    planner.close()
    assert told[0].startswith("shards are not fetched ahead: cache ") and told[0].endswith("give it more room.")
    assert not Path(tmp_path / PLAN).exists()
