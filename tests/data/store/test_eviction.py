"""Eviction: no rule keeps more than ours where the next uses are known, compared with a search through all choices."""

import functools
import math
import random

import pytest

from refiner_ds.data.store.cache import Cache, CacheOptions
from refiner_ds.data.store.contract import StoredFile
from refiner_ds.data.store.eviction import Entry, eviction_order
from refiner_ds.data.store.files import Part


def next_use_after(trace: list[str], place: int, name: str) -> float:
    """The place in the trace at which a shard is used next."""
    return trace.index(name, place + 1) if name in trace[place + 1 :] else math.inf


def hits_of(trace: list[str], room: int, is_known: bool) -> tuple[int, list[str]]:
    """How many uses find their shard among at most `room`, and which ones go, in order."""
    last_use: dict[str, int] = {}
    hits, gone = 0, []
    for place, name in enumerate(trace):
        if name in last_use:
            hits += 1
        elif len(last_use) == room:
            entries = [
                Entry(other, 1, used, next_use_after(trace, place, other) if is_known else math.inf)
                for other, used in last_use.items()
            ]
            gone.append(eviction_order(entries)[0].sha256)
            del last_use[gone[-1]]
        last_use[name] = place
    return hits, gone


def most_hits(trace: list[str], room: int) -> int:
    """The most hits that any choice of evictions allows, by trying all of them."""

    @functools.cache
    def best(place: int, cached: frozenset[str]) -> int:
        if place == len(trace):
            return 0
        name = trace[place]
        if name in cached:
            return 1 + best(place + 1, cached)
        if len(cached) < room:
            return best(place + 1, cached | {name})
        return max(best(place + 1, cached - {victim} | {name}) for victim in cached)

    return best(0, frozenset())


def epochs_of(count: int, epochs: int, seed: int) -> list[str]:
    """A trace that takes every shard once in each epoch, each in another order."""
    chance = random.Random(seed)
    names = [f"{number:064x}" for number in range(count)]
    return [name for _ in range(epochs) for name in chance.sample(names, count)]


def test_no_choice_of_evictions_keeps_more():
    for seed in range(150):
        chance = random.Random(seed)
        names = [str(number) for number in range(chance.randint(3, 7))]
        trace = chance.choices(names, k=18) if seed % 2 else epochs_of(len(names), 4, seed)
        room = chance.randint(1, len(names) - 1)
        hits, _ = hits_of(trace, room, is_known=True)
        assert hits == most_hits(trace, room) >= hits_of(trace, room, is_known=False)[0], (trace, room)


@pytest.mark.parametrize(("share", "known", "unknown"), [(0.1, 0.10, 0.02), (0.25, 0.24, 0.06), (0.5, 0.48, 0.19)])
def test_known_next_uses_hit_as_often_as_the_cache_holds_of_the_data(share, known, unknown):
    count, epochs = 100, 12
    trace = epochs_of(count, epochs, 3)
    uses = count * (epochs - 1)  # the first epoch finds nothing
    rates = [hits_of(trace, round(share * count), is_known)[0] / uses for is_known in (True, False)]
    assert rates[0] >= 0.95 * share and rates[0] >= known and rates[1] <= unknown, rates


def test_a_cache_on_disk_evicts_in_that_order(tmp_path):
    trace = epochs_of(12, 5, 1)
    room, hits, gone = 5, 0, []
    cache = Cache(CacheOptions(tmp_path, room * 4096))
    for place, name in enumerate(trace):
        before = {path.stem for path in tmp_path.glob("*.shard")}
        answer = cache.request(StoredFile("any", 4096, name), functools.partial(next_use_after, trace, place))
        gone += sorted(before - {path.stem for path in tmp_path.glob("*.shard")})
        hits += name in before
        held = cache.finish(answer) if isinstance(answer, Part) else answer
        held.release()
    assert (hits, gone) == hits_of(trace, room, is_known=True)
    assert hits == most_hits(trace, room) > hits_of(trace, room, is_known=False)[0]


def test_of_equals_the_least_recently_used_goes_first():
    entries = [Entry("b", 1, 5, math.inf), Entry("a", 1, 7, math.inf), Entry("d", 1, 1, 3.0), Entry("c", 1, 2, 9.0)]
    assert [entry.sha256 for entry in eviction_order(entries)] == ["b", "a", "c", "d"]
