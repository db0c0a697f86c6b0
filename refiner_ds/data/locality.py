"""Which shards a rank or a node needs, and when: for caches that fetch ahead and evict by known next use."""

import numpy as np

from refiner_ds.data.order import Order

NEVER = np.iinfo(np.int64).max
"""Stands for a step that does not come in the next two epochs."""


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


def next_uses(order: Order, step: int, places: range) -> np.ndarray:
    """For every shard number the first step >= `step` at which these places are filled from it, (shards,) int64.

    NEVER where that is not within the next two epochs. The `argsort` is the order to fetch in, the largest entry of a
    cached shard names the one to evict. An entry holds until its step has come. Costs two passes' permutations.
    """
    uses = np.full(int(order.shards.max()) + 1, NEVER)
    before, after = order.due.before(step), order.due.before(step + order.steps_of(2))
    for bucket, walk in order.walks.items():
        lanes = walk.passes.lanes
        for lane in lanes.of_places(places):
            start, size = int(lanes.starts[lane]), int(lanes.sizes[lane])
            draw, last = before[bucket] * size, after[bucket] * size
            while draw < last:
                samples = walk.stretch(lane, draw)[: last - draw]
                numbers, offsets = np.divmod(np.arange(draw, draw + len(samples)), size)
                is_ours = (offsets + start >= places.start) & (offsets + start < places.stop)
                steps = order.due.step_of(bucket, numbers[is_ours])
                np.minimum.at(uses, _shards_of(order, samples[is_ours]), steps)
                draw += len(samples)
    return uses


def _shards_of(order: Order, samples: np.ndarray) -> np.ndarray:
    if order.shard_of_sample is None:
        return np.zeros(len(samples), np.int64)
    return order.shard_of_sample[samples]
