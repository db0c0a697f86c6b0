"""The order: what holds for any data set, batch size and split over ranks, and values that may never change."""

import random
from collections import Counter
from collections.abc import Iterator

import pytest

from refiner_ds.data.order import Order


def orders(count: int, seed: int) -> Iterator[tuple[Order, random.Random]]:
    """Orders of random data sets of up to four buckets, some tiny, each with the source of its other choices."""
    for number in range(count):
        choose = random.Random(seed * 10_000 + number)
        buckets = choose.sample(range(6), choose.randint(1, 4))
        weights = [choose.random() ** 3 + 0.02 for _ in buckets]
        assignment = choose.choices(buckets, weights, k=choose.randint(1, 60))
        yield Order(tuple(assignment), choose.randint(1, 24), choose.randint(0, 5)), choose


def members_of(order: Order) -> dict[int, list[int]]:
    assignment = order.bucket_of_sample
    return {bucket: [i for i, b in enumerate(assignment) if b == bucket] for bucket in set(assignment)}


def steps_of_passes(order: Order, passes: int) -> int:
    """Steps after which every bucket has been walked through at least `passes` times."""
    smallest = min(map(len, members_of(order).values()))
    buckets = len(set(order.bucket_of_sample))
    batches = -(-passes * smallest // order.global_batch_size) + buckets
    return min(400, -(-batches * len(order.bucket_of_sample) // smallest))


def test_a_batch_is_of_one_bucket_and_its_draws_tell_the_truth():
    for order, _ in orders(80, seed=1):
        for step in range(30):
            draws = order.global_batch(step)
            assert len(draws) == order.global_batch_size
            assert len({draw.bucket for draw in draws}) == 1
            assert all(order.bucket_of_sample[draw.sample] == draw.bucket for draw in draws)


def test_positions_number_the_samples_of_the_run():
    for order, choose in orders(40, seed=2):
        step, size = choose.randrange(10_000), order.global_batch_size
        assert [draw.position for draw in order.global_batch(step)] == [step * size + i for i in range(size)]


def test_every_pass_over_a_bucket_takes_each_of_its_samples_once():
    for order, _ in orders(60, seed=3):
        streams: dict[int, list[int]] = {bucket: [] for bucket in order.bucket_of_sample}
        for step in range(steps_of_passes(order, passes=3)):
            for draw in order.global_batch(step):
                streams[draw.bucket].append(draw.sample)
        for bucket, members in members_of(order).items():
            passes = len(streams[bucket]) // len(members)
            assert passes >= 1
            for i in range(passes):
                assert sorted(streams[bucket][i * len(members) : (i + 1) * len(members)]) == members


def test_buckets_take_turns_in_proportion_to_their_size():
    for order, _ in orders(60, seed=4):
        taken: Counter[int] = Counter()
        sizes = {bucket: len(members) for bucket, members in members_of(order).items()}
        for step in range(1, 120):
            taken[order.global_batch(step - 1)[0].bucket] += 1
            for bucket, size in sizes.items():
                assert abs(taken[bucket] - step * size / len(order.bucket_of_sample)) < len(sizes)


def test_ranks_and_micro_batches_together_are_the_global_batch_for_every_split():
    for order, choose in orders(60, seed=5):
        total = order.global_batch_size
        first = choose.randrange(50)
        whole = [order.global_batch(step) for step in range(first, first + 3)]
        for micro in (m for m in range(1, total + 1) if total % m == 0):
            for ranks in (r for r in range(1, total // micro + 1) if (total // micro) % r == 0):
                streams = [list(order.micro_batches(first, first + 3, micro, rank, ranks)) for rank in range(ranks)]
                steps = total // (micro * ranks)
                assert all(len(stream) == 3 * steps for stream in streams)
                for step in range(3):
                    moments = zip(*(stream[step * steps : (step + 1) * steps] for stream in streams), strict=True)
                    assert [draw for moment in moments for batch in moment for draw in batch] == whole[step]


def test_a_sample_is_in_a_batch_once_unless_a_new_pass_begins_in_it():
    for order, _ in orders(60, seed=6):
        drawn: Counter[int] = Counter()
        for step in range(60):
            draws = order.global_batch(step)
            bucket, size = draws[0].bucket, order.bucket_of_sample.count(draws[0].bucket)
            rest = -drawn[bucket] % size or size
            drawn[bucket] += len(draws)
            for part in (draws[:rest], draws[rest : rest + size]):
                assert len({draw.sample for draw in part}) == len(part)


def test_a_stream_from_the_middle_is_the_tail_of_the_whole():
    for order, choose in orders(30, seed=7):
        last, middle = 24, choose.randrange(25)
        whole = list(order.micro_batches(0, last, 1, 0, 1))
        assert list(order.micro_batches(middle, last, 1, 0, 1)) == whole[middle * order.global_batch_size :]


def test_steps_of_epochs_is_the_least_number_that_completes_them():
    for order, choose in orders(80, seed=8):
        epochs = choose.randrange(5)
        needed = epochs * len(order.bucket_of_sample)
        steps = order.steps_of(epochs)
        assert steps * order.global_batch_size >= needed > (steps - 1) * order.global_batch_size


def test_passes_and_seeds_shuffle_anew():
    sequences = set()
    for seed in range(4):
        order = Order((0,) * 30, 30, seed)
        sequences |= {tuple(draw.sample for draw in order.global_batch(step)) for step in range(5)}
    assert len(sequences) == 20 and tuple(range(30)) not in sequences


def test_buckets_of_equal_size_are_shuffled_apart():
    order = Order((0, 1) * 20, 20, seed=0)
    first, second = sorted((order.global_batch(step) for step in range(2)), key=lambda draws: draws[0].bucket)
    assert [draw.sample // 2 for draw in first] != [draw.sample // 2 for draw in second]


def test_a_single_sample_can_fill_any_batch():
    assert [draw.sample for draw in Order((3,), 5, 0).global_batch(7)] == [0] * 5


def test_the_order_is_the_one_that_runs_were_begun_with():
    order = Order((0, 0, 1, 0, 1, 1, 0, 0, 0), 2, seed=0)
    found = [[draw.sample for draw in order.global_batch(step)] for step in range(9)]
    assert found == [[3, 8], [0, 1], [5, 2], [6, 7], [7, 0], [4, 5], [3, 8], [1, 6], [4, 2]]


@pytest.mark.timeout(20)
def test_a_far_step_is_found_without_walking_there():
    order = Order(tuple(random.Random(0).choices(range(3), (5, 2, 1), k=5000)), 64, seed=0)
    draws = [draw for step in (10**9, 10**9 + 1) for draw in order.global_batch(step)]
    assert [draw.position for draw in draws] == [64 * 10**9 + i for i in range(128)]
