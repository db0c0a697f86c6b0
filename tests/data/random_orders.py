"""Random orders of many shapes for the property tests, and what is counted in them."""

import random
from collections import Counter
from collections.abc import Iterator

import numpy as np

from refiner_ds.data.order import Order

COUNTS = (1, 2, 3, 7, 31, 60, 97, 131, 240)
"""Samples of a split: one, primes, fewer than a batch, and more."""
WEIGHTS = (1.0, 2.0, 0.5, 0.3, 2.25, 0.01, 1.7)


def orders(count: int, seed: int, is_weighted: bool = False) -> Iterator[tuple[Order, random.Random]]:
    """Orders of all shapes, each with the source of its test's other choices."""
    for number in range(count):
        choose = random.Random(seed * 10_000 + number)
        total = choose.choice(COUNTS)
        buckets = choose.sample(range(8), choose.randint(1, 6))
        shares = [choose.random() ** 3 + 0.02 for _ in buckets]
        weights = [choose.choice(WEIGHTS) for _ in range(3)]
        yield (
            Order(
                bucket_of_sample=np.array(choose.choices(buckets, shares, k=total), np.uint8),
                global_batch_size=choose.choice((1, 2, 5, 7, 12, 16, 24, 48)),
                seed=choose.randint(0, 5),
                shard_of_sample=shards(total, choose),
                weight_of_sample=np.array(choose.choices(weights, k=total)) if is_weighted else None,
                window_shards=choose.choice((None, 1, 2, 5)),
                lanes=choose.choice((1, 2, 3, 4, 6, 8, 16)),
            ),
            choose,
        )


def shards(total: int, choose: random.Random) -> np.ndarray | None:
    """Shards of unequal sizes with gaps between their numbers; sometimes in no order, sometimes unknown."""
    kind = choose.choice(("unknown", "scattered", "ordered", "ordered", "ordered"))
    if kind == "unknown":
        return None
    names = choose.sample(range(100), choose.randint(1, 20))
    found = np.array(choose.choices(names, [choose.random() + 0.05 for _ in names], k=total), np.uint32)
    return found if kind == "scattered" else np.sort(found)


def members_of(order: Order) -> dict[int, list[int]]:
    """The samples of each bucket."""
    return {b: np.flatnonzero(np.asarray(order.bucket_of_sample) == b).tolist() for b in order.samples_by_bucket}


def steps_of_passes(order: Order, passes: int, limit: int = 400) -> int:
    """Steps after which every bucket has been walked through about `passes` times."""
    smallest = min(order.due.sizes.values())
    batches = -(-passes * smallest // order.global_batch_size) + len(order.due.sizes)
    return min(limit, -(-batches * order.due.total // smallest))


def samples_drawn(draws: list) -> Counter:
    """How often each sample was drawn."""
    return Counter(draw.sample for draw in draws)
