"""The order: what holds for any data set, batch size, weights, windows and lanes, and values that may never change."""

import hashlib
import itertools
import math
import os
import pickle
import random
import subprocess
import sys
from collections import Counter

import numpy as np
import pytest

from refiner_ds.data.order import Order
from refiner_ds.errors import UserError
from tests.data.random_orders import members_of, orders, samples_drawn, steps_of_passes

GOLDEN = "dfec09ec131f5e83e68d6df5f55ab6d1eab8861775bf96253648338b8e70a0da"
"""sha256 of `sequences()`: runs were begun with it, so it may never change."""


def sequences() -> str:
    """The samples of some steps of 60 orders of all shapes, as text."""
    lines = []
    for is_weighted in (False, True):
        for order, choose in orders(30, seed=99, is_weighted=is_weighted):
            for step in (0, 1, 2, 3, choose.randrange(1000), choose.randrange(10**9)):
                lines.append(" ".join(f"{draw.bucket}:{draw.sample}" for draw in order.global_batch(step)))
    return "\n".join(lines)


@pytest.mark.parametrize("is_weighted", [False, True])
def test_a_batch_is_of_one_bucket_and_its_draws_tell_the_truth(is_weighted):
    for order, choose in orders(80, seed=1, is_weighted=is_weighted):
        for step in [*range(20), choose.randrange(10**9)]:
            draws, size = order.global_batch(step), order.global_batch_size
            assert [draw.position for draw in draws] == [step * size + i for i in range(size)]
            assert len({draw.bucket for draw in draws}) == 1
            assert all(order.bucket_of_sample[draw.sample] == draw.bucket for draw in draws)
            assert all(isinstance(value, int) for value in (draws[0].sample, draws[0].bucket, draws[0].position))


def test_after_any_step_the_samples_of_a_bucket_have_been_drawn_equally_often_to_within_one():
    for order, _ in orders(150, seed=2):
        drawn: Counter[int] = Counter()
        by_bucket = dict.fromkeys(members_of(order), 0)
        for step in range(steps_of_passes(order, passes=3)):
            draws = order.global_batch(step)
            drawn.update(samples_drawn(draws))
            by_bucket[draws[0].bucket] += len(draws)
            members = members_of(order)[draws[0].bucket]
            passes = by_bucket[draws[0].bucket] / len(members)
            assert {drawn[sample] for sample in members} <= {math.floor(passes), math.ceil(passes)}


def test_without_lanes_every_pass_over_a_bucket_is_one_stretch_of_its_stream():
    for order, _ in orders(80, seed=3):
        if order.lanes > 1:
            continue
        streams: dict[int, list[int]] = {bucket: [] for bucket in members_of(order)}
        for step in range(steps_of_passes(order, passes=3)):
            for draw in order.global_batch(step):
                streams[draw.bucket].append(draw.sample)
        for bucket, members in members_of(order).items():
            for i in range(len(streams[bucket]) // len(members)):
                assert sorted(streams[bucket][i * len(members) : (i + 1) * len(members)]) == members


def test_buckets_take_turns_in_proportion_to_their_size():
    for order, _ in orders(60, seed=4):
        taken: Counter[int] = Counter()
        for step in range(1, 120):
            bucket, number = order.due.at(step - 1)
            assert number == taken[bucket] and order.due.step_of(bucket, np.array([number])) == [step - 1]
            taken[bucket] += 1
            assert order.due.before(step) == {bucket: taken[bucket] for bucket in order.due.sizes}
            for bucket, size in order.due.sizes.items():
                assert abs(taken[bucket] - step * size / order.due.total) < len(order.due.sizes)


@pytest.mark.parametrize("is_weighted", [False, True])
def test_ranks_and_micro_batches_together_are_the_global_batch_for_every_split(is_weighted):
    for order, choose in orders(60, seed=5, is_weighted=is_weighted):
        total = order.global_batch_size
        first = choose.randrange(50)
        whole = [order.global_batch(step) for step in range(first, first + 3)]
        for micro in (m for m in range(1, total + 1) if total % m == 0):
            for ranks in (r for r in range(1, total // micro + 1) if (total // micro) % r == 0):
                streams = [list(order.micro_batches(first, first + 3, micro, rank, ranks)) for rank in range(ranks)]
                steps = total // (micro * ranks)
                assert all(len(batch) == micro for stream in streams for batch in stream)
                assert all(len(stream) == 3 * steps for stream in streams)
                for step in range(3):
                    ours = [stream[step * steps : (step + 1) * steps] for stream in streams]
                    assert [draw for rank in ours for batch in rank for draw in batch] == whole[step]


def test_all_ranks_of_any_world_together_take_every_sample_once_a_pass():
    for number in range(40):
        choose = random.Random(6_000 + number)
        ranks, micro, accumulation = choose.randint(1, 16), choose.randint(1, 3), choose.randint(1, 4)
        total = choose.choice((1, 5, 97, 240))
        order = Order(
            np.arange(total) % choose.randint(1, 3),
            ranks * micro * accumulation,
            seed=number,
            shard_of_sample=np.arange(total) // choose.choice((1, 7, 20)),
            window_shards=choose.choice((None, 1, 3)),
            lanes=choose.choice((1, 2, 4, 8)),
        )
        steps = steps_of_passes(order, passes=2, limit=150)
        drawn = [list(order.micro_batches(0, steps, micro, rank, ranks)) for rank in range(ranks)]
        assert {len(stream) for stream in drawn} == {steps * accumulation}
        counts = samples_drawn([draw for stream in drawn for batch in stream for draw in batch])
        taken = order.due.before(steps)
        for bucket, members in members_of(order).items():
            passes = taken[bucket] * order.global_batch_size / len(members)
            assert {counts[sample] for sample in members} <= {math.floor(passes), math.ceil(passes)}


def test_a_changed_world_continues_the_sequence():
    for order, choose in orders(60, seed=7, is_weighted=True):
        size = order.global_batch_size
        worlds = [n for n in range(1, 17) if size % n == 0]
        moments = [0, *sorted(choose.sample(range(1, 30), 3)), 30]
        found = []
        for first, last in itertools.pairwise(moments):
            ranks = choose.choice(worlds)
            for rank in range(ranks):
                found += [draw for batch in order.micro_batches(first, last, 1, rank, ranks) for draw in batch]
        found.sort(key=lambda draw: draw.position)
        assert found == [draw for step in range(30) for draw in order.global_batch(step)]


@pytest.mark.parametrize("is_weighted", [False, True])
def test_a_stream_from_any_step_is_the_tail_of_the_whole(is_weighted):
    for order, choose in orders(40, seed=8, is_weighted=is_weighted):
        whole = list(order.micro_batches(0, 40, 1, 0, 1))
        middle = choose.randrange(41)
        fresh = pickle.loads(pickle.dumps(order))
        assert list(fresh.micro_batches(middle, 40, 1, 0, 1)) == whole[middle * order.global_batch_size :]


def test_steps_of_epochs_is_the_least_number_that_completes_them():
    for order, choose in orders(80, seed=9, is_weighted=True):
        epochs = choose.randrange(5)
        needed = epochs * order.due.total
        steps = order.steps_of(epochs)
        assert steps * order.global_batch_size >= needed > (steps - 1) * order.global_batch_size


@pytest.mark.parametrize("window_shards", [None, 2])
def test_passes_and_seeds_shuffle_anew(window_shards):
    found = set()
    for seed in range(4):
        order = Order([0] * 30, 30, seed, np.arange(30) // 5, window_shards=window_shards)
        found |= {tuple(draw.sample for draw in order.global_batch(step)) for step in range(5)}
    assert len(found) == 20 and tuple(range(30)) not in found


def test_buckets_and_lanes_of_equal_size_are_shuffled_apart():
    order = Order((0, 1) * 20, 20, seed=0)
    first, second = sorted((order.global_batch(step) for step in range(2)), key=lambda draws: draws[0].bucket)
    assert [draw.sample // 2 for draw in first] != [draw.sample // 2 for draw in second]
    draws = Order([0] * 40, 40, 0, np.arange(40) // 20, lanes=2).global_batch(0)
    assert [draw.sample for draw in draws[:20]] != [draw.sample - 20 for draw in draws[20:]]


def test_a_single_sample_can_fill_any_batch():
    assert [draw.sample for draw in Order((3,), 5, 0).global_batch(7)] == [0] * 5
    assert [draw.sample for draw in Order((3,), 5, 0, lanes=16).global_batch(7)] == [0] * 5


def test_the_order_is_the_one_that_runs_were_begun_with():
    order = Order((0, 0, 1, 0, 1, 1, 0, 0, 0), 2, seed=0)
    found = [[draw.sample for draw in order.global_batch(step)] for step in range(9)]
    assert found == [[0, 6], [8, 3], [2, 4], [7, 1], [1, 6], [5, 2], [3, 8], [0, 7], [5, 4]]
    assert hashlib.sha256(sequences().encode()).hexdigest() == GOLDEN


@pytest.mark.parametrize("hash_seed", ["0", "12345"])
def test_the_order_is_the_same_in_every_process(hash_seed):
    program = "import hashlib; from tests.data.test_order import sequences as s; "
    program += "print(hashlib.sha256(s().encode()).hexdigest())"
    found = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, "PYTHONHASHSEED": hash_seed},
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    assert found.stdout.strip() == GOLDEN


@pytest.mark.timeout(20)
def test_a_far_step_is_found_without_walking_there():
    buckets = random.Random(0).choices(range(3), (5, 2, 1), k=5000)
    order = Order(buckets, 64, 0, np.arange(5000) // 20, window_shards=4, lanes=4)
    draws = [draw for step in (10**9, 10**9 + 1) for draw in order.global_batch(step)]
    assert [draw.position for draw in draws] == [64 * 10**9 + i for i in range(128)]


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"lanes": 0}, "lanes 0: shards cannot be dealt into fewer than one part; take 1, or more."),
        ({"window_shards": 0}, "window_shards 0: no sample lies in so few shards; take 1 or more, or none."),
        ({"weight_of_sample": np.array([1.0, 0.0])}, "weight 0.0: its samples would never be drawn"),
        ({"weight_of_sample": np.array([1.0, np.nan])}, "weight nan: its samples would never be drawn"),
    ],
)
def test_settings_that_leave_nothing_to_draw_are_refused(settings, sentence):
    with pytest.raises(UserError) as caught:
        Order([0, 0], 1, 0, **settings)
    assert str(caught.value).startswith(sentence)
