"""Lanes and windows: a node needs its lanes' shards only, a batch few windows, and the next use of a shard is known."""

import random

import numpy as np

from refiner_ds.data.locality import NEVER, next_uses, shards_at, shards_at_once, shards_needed, uses_of
from refiner_ds.data.order import Order
from refiner_ds.data.ordering.lanes import Lanes
from tests.data.random_orders import orders


def shard_of(order: Order, sample: int) -> int:
    return 0 if order.shard_of_sample is None else int(order.shard_of_sample[sample])


def test_lanes_are_adjacent_places_and_turns_number_a_batch():
    for size in range(1, 40):
        for count in range(1, 24):
            lanes = Lanes(count, size)
            assert lanes.sizes.sum() == size and lanes.sizes.max() - lanes.sizes.min() <= 1
            turns = [[lanes.turn_of(lane, i) for i in range(lanes.sizes[lane])] for lane in range(count)]
            assert sorted(turn for lane in turns for turn in lane) == list(range(size))
            for taken in range(2 * size + 1):
                batches, rest = divmod(taken, size)
                given = [batches * lanes.sizes[lane] + sum(t < rest for t in turns[lane]) for lane in range(count)]
                assert lanes.given(taken).tolist() == given
            for parts in (n for n in range(1, count + 1) if count % n == 0 == size % n):
                for part in range(parts):
                    own = lanes.of_places(range(part * size // parts, (part + 1) * size // parts))
                    assert set(own) <= set(range(part * count // parts, (part + 1) * count // parts))


def test_a_rank_and_a_node_draw_from_the_shards_that_they_need():
    for is_weighted in (False, True):
        for order, choose in orders(50, seed=31, is_weighted=is_weighted):
            parts = choose.choice([n for n in range(1, 17) if order.global_batch_size % n == 0])
            needed = [set(shards_needed(order, order.places_of(part, parts)).tolist()) for part in range(parts)]
            for step in [*range(25), choose.randrange(10**7)]:
                batch = order.global_batch(step)
                for part in range(parts):
                    places = order.places_of(part, parts)
                    touched = {shard_of(order, draw.sample) for draw in batch[places.start : places.stop]}
                    assert touched == set(shards_at(order, step, places).tolist()) <= needed[part]


def test_a_node_needs_its_part_of_the_shards_whatever_ranks_and_accumulation_it_has():
    for number in range(60):
        choose = random.Random(number)
        nodes = choose.choice((1, 2, 3, 4, 8))
        lanes = nodes * choose.choice((1, 2, 4))
        ranks_of_node, micro, accumulation = choose.randint(1, 8), choose.randint(1, 3), choose.randint(1, 4)
        shard_size, count = choose.choice((5, 20, 50)), choose.choice((400, 997, 3000))
        ranks = nodes * ranks_of_node
        order = Order(
            np.zeros(count, int),
            ranks * micro * accumulation,
            number,
            shard_of_sample=np.arange(count) // shard_size,
            window_shards=choose.choice((None, 2)),
            lanes=lanes,
        )
        for node in range(nodes):
            needed = set(shards_needed(order, order.places_of(node, nodes)).tolist())
            assert len(needed) <= (count / nodes + 2 * (lanes // 4 + 3)) / shard_size + 2
            for rank in range(node * ranks_of_node, (node + 1) * ranks_of_node):
                for batch in order.micro_batches(0, 12, micro, rank, ranks):
                    assert {shard_of(order, draw.sample) for draw in batch} <= needed


def test_every_lane_has_its_share_of_every_data_set():
    """Two data sets one after the other in the index, one drawn ten times as often: no lane is of one of them."""
    weights = np.repeat([0.3, 3.0], 4000)
    order = Order(np.zeros(8000, int), 64, 0, np.arange(8000) // 20, weights, window_shards=4, lanes=8)
    for lane in range(8):
        needed = shards_needed(order, order.places_of(lane, 8))
        assert 24 <= (needed < 200).sum() <= 30 and 24 <= (needed >= 200).sum() <= 30


def test_a_batch_touches_the_shards_of_few_windows():
    """Of each lane it takes n adjacent draws, so at most 2 + (n - 2) // m windows, m being the fewest draws in one."""
    for number in range(60):
        choose = random.Random(number)
        order = Order(
            np.array(choose.choices(range(3), k=900)),
            choose.choice((6, 24, 60)),
            number,
            shard_of_sample=np.arange(900) // choose.choice((10, 25)),
            window_shards=choose.choice((1, 2, 4)),
            lanes=choose.choice((1, 2, 3)),
        )
        window_shards, lanes = order.window_shards, order.lanes
        for step in range(80):
            bucket, batch = order.due.at(step)
            first = batch * order.global_batch_size // order.due.sizes[bucket]
            windows = [order.walks[bucket].windows(p, lane) for p in range(first, first + 3) for lane in range(lanes)]
            sizes = np.concatenate([np.diff(found.ends, prepend=0) for found in windows])
            fewest = int(sizes[sizes > 0].min())
            taken = order.global_batch_size // lanes
            bound = lanes * window_shards * (2 + max(0, taken - 2) // fewest)
            assert len(shards_at(order, step, range(order.global_batch_size))) <= bound


def test_windows_are_cut_from_all_shards_anew_in_every_pass_and_are_the_same_for_all_buckets():
    order = Order(np.arange(600) % 3, 20, 0, np.arange(600) // 20, window_shards=4)
    cuts = []
    for number in range(3):
        windows = [[walk.windows(number, 0).of(w).tolist() for w in range(8)] for walk in order.walks.values()]
        assert windows[0] == windows[1] == windows[2]
        assert sorted(shard for window in windows[0] for shard in window) == list(range(30))
        assert all(len(window) in (3, 4) for window in windows[0])
        cuts.append(str(windows[0]))
    assert len(set(cuts)) == 3


def test_the_next_use_of_every_shard_is_the_step_that_it_comes_in():
    for is_weighted in (False, True):
        for order, choose in orders(60, seed=32, is_weighted=is_weighted):
            parts = choose.choice([n for n in (1, 2, 3, 4) if order.global_batch_size % n == 0])
            places = order.places_of(choose.randrange(parts), parts)
            step = choose.choice((0, 1, 7, 1000))
            last = step + order.steps_of(2)
            uses = next_uses(uses_of(order, step, last, places), step, int(order.shards.max()) + 1)
            first: dict[int, int] = {}
            for later in range(step, last):
                for shard in shards_at(order, later, places).tolist():
                    first.setdefault(shard, later)
            assert {shard: int(use) for shard, use in enumerate(uses) if use != NEVER} == first


def test_a_shard_of_full_weight_always_has_a_next_use():
    order = Order(np.arange(600) % 2, 24, 0, np.arange(600) // 20, window_shards=3)
    for step in (0, 11, 24, 1001):
        last = step + order.steps_of(2)
        assert np.all(next_uses(uses_of(order, step, last, range(24)), step, 30) < last)
    uses = uses_of(Order([0] * 4, 2, 0, np.array([1, 1, 3, 3])), 0, 4, range(2))
    assert next_uses(uses, 0, 5)[[0, 2, 4]].tolist() == [NEVER] * 3


def test_a_cache_of_two_windows_a_lane_meets_each_shard_once_in_an_epoch():
    """By evicting what is used last, from the uses of three epochs."""
    for window, lanes in ((1, 1), (2, 1), (4, 1), (2, 2), (None, 1)):
        order = Order(np.zeros(640, int), 8, 1, np.arange(640) // 20, window_shards=window, lanes=lanes)
        room, last = shards_at_once(order, range(8)), order.steps_of(3)
        uses = uses_of(order, 0, last, range(8))
        cached: set[int] = set()
        fetched = 0
        for step in range(last):
            steps = next_uses(uses, step, 32)
            for shard in np.flatnonzero(steps == step).tolist():
                fetched += shard not in cached
                cached.add(shard)
                if len(cached) > room:
                    cached.remove(max(cached - {shard}, key=lambda number: steps[number]))
        assert room == (32 if window is None else 2 * window * lanes) and fetched <= 32 * 3, (window, lanes, fetched)


def test_one_table_tells_the_next_uses_at_every_step_that_it_covers():
    for order, choose in orders(40, seed=33):
        places = range(choose.randint(1, order.global_batch_size))
        first = choose.choice((0, 5, 900))
        last, count = first + order.steps_of(2), int(order.shards.max()) + 1
        uses = uses_of(order, first, last, places)
        assert np.all(np.diff(uses) > 0)
        for step in {first, choose.randrange(first, last), last - 1, last}:
            rest = uses_of(order, step, last, places)
            assert np.array_equal(next_uses(uses, step, count), next_uses(rest, step, count))
