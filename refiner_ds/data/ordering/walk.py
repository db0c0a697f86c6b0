"""The walk through one bucket: the passes one after the other, each shuffled within windows of shards."""

import functools
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from refiner_ds.data.ordering.passes import Passes
from refiner_ds.data.ordering.permutation import shuffled


@dataclass(frozen=True)
class Windows:
    """The windows of a lane in one pass.

    Attributes:
        shards: the lane's dealt shards, those of the first window first, (shards,) int64.
        bounds: first shard of each window, and the end, (windows + 1,) int64.
        ends: draws of the pass up to the end of each window, (windows,) int64.
    """

    shards: np.ndarray
    bounds: np.ndarray
    ends: np.ndarray

    def of(self, window: int) -> np.ndarray:
        """The dealt shards of a window, ascending, (n,) int64."""
        return np.sort(self.shards[self.bounds[window] : self.bounds[window + 1]])


@dataclass(frozen=True, eq=False)
class Walk:
    """The endless stream of a bucket, cut into global batches.

    Attributes:
        territories: the dealt shards of each lane over all buckets, so that all buckets walk the same windows.
        window_shards: shards of a window at most; None makes one window of all of a lane's shards.
    """

    bucket: int
    passes: Passes
    territories: tuple[np.ndarray, ...]
    window_shards: int | None
    seed: int

    def draws(self, batch: int, places: range) -> np.ndarray:
        """The samples at adjacent places of global batch `batch` of this bucket, (places,) int32."""
        lanes, parts = self.passes.lanes, [np.empty(0, np.int32)]
        for lane in lanes.of_places(places):
            start, end, size = int(lanes.starts[lane]), int(lanes.starts[lane + 1]), int(lanes.sizes[lane])
            place, last = max(places.start, start), min(places.stop, end)
            while place < last:
                parts.append(self.stretch(lane, batch * size + place - start)[: last - place])
                place += len(parts[-1])
        return np.concatenate(parts)

    def stretch(self, lane: int, draw: int) -> np.ndarray:
        """The samples of a lane's endless stream from `draw` on to the end of its window, (n,) int32, at least one."""
        number = self.passes.number_at(lane, draw)
        place = draw - int(self.passes.at(number).begun[lane])
        ends = self.windows(number, lane).ends
        window = int(np.searchsorted(ends, place, "right"))
        return self._shuffled(number, lane, window)[place - (int(ends[window - 1]) if window else 0) :]

    @functools.cached_property
    def windows(self) -> Callable[[int, int], Windows]:
        """`windows(number, lane)` are the windows of a lane in pass `number`."""
        return functools.lru_cache(2 * self.passes.lanes.count)(self._make_windows)

    @functools.cached_property
    def _shuffled(self) -> Callable[[int, int, int], np.ndarray]:
        return functools.lru_cache(2 * self.passes.lanes.count)(self._shuffle)

    def _make_windows(self, number: int, lane: int) -> Windows:
        """Cuts a lane's shards, in an order of their own in each pass, into windows as equal as can be."""
        shards = self.territories[lane]
        count = -(-len(shards) // (self.window_shards or len(shards)))
        if count > 1:
            shards = shards[shuffled(len(shards), self.seed, "shards", number, lane)]
        bounds = np.arange(count + 1) * len(shards) // count
        drawn = np.concatenate([[0], np.cumsum(self.passes.at(number).counts(lane, shards))])
        return Windows(shards, bounds, drawn[bounds[1:]])

    def _shuffle(self, number: int, lane: int, window: int) -> np.ndarray:
        draws = self.passes.at(number).part(lane, self.windows(number, lane).of(window))
        return draws[shuffled(len(draws), self.seed, "order", self.bucket, number, lane, window)]
