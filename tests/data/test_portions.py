"""Weights: passes of constant length, every sample its turn, and each weight kept to within one draw a pass."""

import math
import random
from collections import Counter

import numpy as np
import pytest

from refiner_ds.data.order import Order
from refiner_ds.data.ordering.portions import Portions
from tests.data.random_orders import WEIGHTS, members_of, orders, steps_of_passes


def portions_of(weights: list[float], shard_size: int = 7, seed: int = 0) -> Portions:
    return Portions.of(np.array(weights), np.arange(len(weights)) // shard_size, seed, 0)


def test_passes_have_one_length_and_draw_each_sample_its_weight_rounded_down_or_up():
    for number in range(60):
        choose = random.Random(number)
        weights = choose.choices(choose.sample(WEIGHTS, 3), k=choose.choice((1, 2, 13, 60, 97)))
        portions = portions_of(weights)
        for i in [*range(12), choose.randrange(10**9)]:
            draws = portions.draws(i)
            draws = np.ones(len(weights)) if draws is None else draws
            assert draws.sum() == portions.length
            assert all(d in (math.floor(w), math.ceil(w)) for d, w in zip(draws, weights, strict=True))


@pytest.mark.parametrize("weight", [0.5, 0.3, 0.1, 1.7, 2.25, 0.75, 0.001])
@pytest.mark.parametrize("count", [1, 2, 7, 40, 97, 1000])
def test_every_sample_gets_its_turn_in_as_many_passes_as_one_by_its_broken_part(count, weight):
    portions = portions_of([weight] * count)
    (share,) = portions.shares
    turns = math.ceil(count / share.count)
    if count * (weight % 1) >= 0.5:
        assert abs(share.count - count * (weight % 1)) <= 0.5 + 1e-6
    for first in (0, 5, 123_456):
        times: Counter[int] = Counter()
        for number in range(first, first + turns):
            chosen = share.chosen(number).tolist()
            assert len(set(chosen)) == len(chosen) == share.count
            times.update(chosen)
        assert set(times) == set(range(count))


def test_after_many_passes_all_samples_of_a_weight_have_been_drawn_alike():
    portions = portions_of([0.3] * 50 + [2.25] * 40)
    drawn = sum(portions.draws(number) for number in range(200))
    assert set(drawn[:50].tolist()) == {60} and set(drawn[50:].tolist()) == {450}


def test_the_turns_of_a_shard_are_its_share_in_every_pass():
    """Spread evenly over the shards, so that lanes keep their shards; in no order within a shard."""
    portions = portions_of([0.3] * 400, shard_size=20)
    for number in range(10):
        chosen = np.sort(portions.shares[0].chosen(number))
        assert np.all(np.bincount(chosen // 20, minlength=20) == 6)
        assert len(set(np.diff(chosen).tolist())) > 3


def test_datasets_are_drawn_in_proportion_to_their_weights():
    weights = np.repeat([1.0, 0.5, 3.0], [300, 400, 100])
    order = Order(np.zeros(800, int), 40, 0, np.arange(800) // 25, weights, window_shards=4, lanes=4)
    assert order.due.total == 800 and order.steps_of(1) == 20
    drawn = Counter(draw.sample for step in range(40) for draw in order.global_batch(step))
    assert {drawn[sample] for sample in range(300)} == {2}
    assert {drawn[sample] for sample in range(300, 700)} == {1}
    assert {drawn[sample] for sample in range(700, 800)} == {6}


def test_after_any_step_every_sample_has_been_drawn_what_its_weight_says():
    for order, _ in orders(100, seed=21, is_weighted=True):
        steps = steps_of_passes(order, passes=4)
        drawn = Counter(draw.sample for step in range(steps) for draw in order.global_batch(step))
        for bucket, members in members_of(order).items():
            draws = order.due.before(steps)[bucket] * order.global_batch_size
            passes = draws // order.due.sizes[bucket]
            portions = order.walks[bucket].passes.portions
            expected = dict(zip(order.walks[bucket].passes.members.tolist(), portions.expected(), strict=True))
            for sample in members:
                whole = math.floor(order.weight_of_sample[sample])
                broken = expected[sample] - whole
                least = whole * passes + math.floor(passes * broken + 1e-9)
                most = whole * (passes + 1) + math.ceil((passes + 1) * broken - 1e-9)
                assert least <= drawn[sample] <= most
