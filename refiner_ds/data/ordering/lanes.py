"""Lanes: fixed parts of a data set that fill fixed places of every global batch, so that a node needs few shards."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np


@dataclass(frozen=True)
class Lanes:
    """The places of a global batch, cut into `count` runs of equal length (to within one), a lane each.

    The places of a lane are adjacent, and so are those of a rank and of a node. Where the number of nodes divides the
    number of lanes, a node's places are whole lanes.

    Draws have *turns* beside places: within a batch every lane gives its first, then every lane its second, and so on.
    A pass over a bucket ends at a turn, so that it takes equally much from all lanes, to within one draw.
    """

    count: int
    global_batch_size: int

    @cached_property
    def starts(self) -> np.ndarray:
        """First place of each lane, and the end, (lanes + 1,) int64."""
        return -(-np.arange(self.count + 1, dtype=np.int64) * self.global_batch_size // self.count)

    @cached_property
    def sizes(self) -> np.ndarray:
        """Places of each lane, (lanes,) int64."""
        return np.diff(self.starts)

    def of_places(self, places: range) -> list[int]:
        """The lanes that fill these adjacent places."""
        if not places:
            return []
        first, last = np.searchsorted(self.starts, [places.start, places.stop - 1], "right").tolist()
        return [lane for lane in range(first - 1, last) if self.sizes[lane]]

    def turn_of(self, lane: int, number: int) -> int:
        """The turn within a batch of a lane's draw `number` = 0, 1, ..."""
        if number < self._rounds:
            return number * self.count + lane
        return self._rounds * self.count + int(self._longer_below[lane])

    def given(self, turns: int) -> np.ndarray:
        """Draws that each lane has given after the first `turns` turns of a bucket's endless stream, (lanes,) int64."""
        batches, rest = divmod(turns, self.global_batch_size)
        rounds, begun = divmod(rest, self.count)
        if rounds < self._rounds:
            within = rounds + (np.arange(self.count) < begun)
        else:
            late = rest - self._rounds * self.count
            within = self._rounds + (self.sizes > self._rounds) * (self._longer_below < late)
        return batches * self.sizes + within

    @property
    def _rounds(self) -> int:
        """Draws that every lane gives to a batch; some give one more."""
        return self.global_batch_size // self.count

    @cached_property
    def _longer_below(self) -> np.ndarray:
        longer = self.sizes > self._rounds
        return np.cumsum(longer) - longer
