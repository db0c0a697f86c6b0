"""Which shards a rank or a node needs, and when: for caches that fetch ahead and evict by known next use."""

import numpy as np

from refiner_ds.data.order import Order

NEVER = np.iinfo(np.int64).max
"""Stands for a step that is not known to come."""
STEP_BITS = 40
"""A use of a shard is one number: the shard's above these bits, the step's in them."""


def shards_needed(order: Order, places: range) -> np.ndarray:
    """Numbers of all shards that these places of the global batches are ever filled from, ascending, (n,).

    For a node: `order.places_of(node, num_nodes)`. Where the number of nodes divides the number of lanes, these are its
    lanes' shards: of each bucket the share of the draws that the node makes, and at most `lanes / 4 + 3` draws more at
    either end (and one for each broken weight), rounded up to whole shards.
    """
    (walk, *_) = order.walks.values()
    lanes = walk.passes.lanes.of_places(places)
    return np.sort(order.shards[np.unique(np.concatenate([walk.territories[lane] for lane in lanes]))])


def shards_at(order: Order, step: int, places: range) -> np.ndarray:
    """Numbers of the shards that these places of the global batch of a step are filled from, ascending, (n,)."""
    bucket, number = order.due.at(step)
    return np.unique(_shards_of(order, order.walks[bucket].draws(number, places)))


def shards_at_once(order: Order, places: range) -> int:
    """How many shards a cache has to hold so that each comes once in an epoch: two windows of each lane, or all."""
    needed = len(shards_needed(order, places))
    if order.window_shards is None:
        return needed
    (walk, *_) = order.walks.values()
    return min(needed, 2 * order.window_shards * len(walk.passes.lanes.of_places(places)))


def uses_of(order: Order, first: int, last: int, places: range) -> np.ndarray:
    """Which shards these places are filled from at which of the steps first <= k < last, each use once.

    Costs the permutations of the passes that these steps lie in.

    Returns:
        (uses,) int64, ascending: shard << STEP_BITS | step.
    """
    found = [np.zeros(0, np.int64)]
    before, after = order.due.before(first), order.due.before(last)
    for bucket, walk in order.walks.items():
        lanes = walk.passes.lanes
        for lane in lanes.of_places(places):
            start, size = int(lanes.starts[lane]), int(lanes.sizes[lane])
            draw, end = before[bucket] * size, after[bucket] * size
            while draw < end:
                samples = walk.stretch(lane, draw)[: end - draw]
                numbers, offsets = np.divmod(np.arange(draw, draw + len(samples)), size)
                is_ours = (offsets + start >= places.start) & (offsets + start < places.stop)
                steps = order.due.step_of(bucket, numbers[is_ours])
                shards = _shards_of(order, samples[is_ours]).astype(np.int64)
                found.append(np.unique(shards << STEP_BITS | steps))
                draw += len(samples)
    return np.unique(np.concatenate(found))


def next_uses(uses: np.ndarray, step: int, count: int) -> np.ndarray:
    """For the shards 0, ..., count - 1 the first step >= `step` at which they are used, (count,) int64, or NEVER.

    The `argsort` is the order to fetch in, the largest entry of a cached shard names the one to evict.
    """
    shards = np.arange(count)
    places = np.searchsorted(uses, shards << STEP_BITS | step)
    found = np.append(uses, -1)[places]
    return np.where(found >> STEP_BITS == shards, found & (1 << STEP_BITS) - 1, NEVER)


def _shards_of(order: Order, samples: np.ndarray) -> np.ndarray:
    if order.shard_of_sample is None:
        return np.zeros(len(samples), np.int64)
    return order.shard_of_sample[samples]
