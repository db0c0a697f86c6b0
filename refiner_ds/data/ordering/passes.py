"""The passes over one bucket: the line of its draws, shard by shard, and where lanes cut it."""

import functools
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from refiner_ds.data.ordering.lanes import Lanes
from refiner_ds.data.ordering.portions import Portions


@dataclass(frozen=True)
class Pass:
    """The draws of one pass before they are shuffled.

    Attributes:
        samples: (draws,) int32, shard by shard as dealt; a sample that is drawn twice stands twice.
        edges: first draw of each dealt shard, and the end, (shards + 1,) int64.
        cuts: first draw of each lane, and the end, (lanes + 1,) int64.
        begun: draws that each lane has given in the passes before, (lanes,) int64.
    """

    samples: np.ndarray
    edges: np.ndarray
    cuts: np.ndarray
    begun: np.ndarray

    def part(self, lane: int, shards: np.ndarray) -> np.ndarray:
        """The draws of a lane from some of the dealt shards, (n,) int32."""
        first, last = self.cuts[lane], self.cuts[lane + 1]
        starts, ends = np.maximum(self.edges[shards], first), np.minimum(self.edges[shards + 1], last)
        return np.concatenate([self.samples[s:e] for s, e in zip(starts, ends, strict=True) if s < e])

    def counts(self, lane: int, shards: np.ndarray) -> np.ndarray:
        """How many draws of a lane come from each of the dealt shards, (n,) int64."""
        first, last = self.cuts[lane], self.cuts[lane + 1]
        return np.clip(self.edges[shards + 1], first, last) - np.clip(self.edges[shards], first, last)


@dataclass(frozen=True, eq=False)
class Passes:
    """All passes over a bucket.

    Attributes:
        members: the bucket's samples, shard by shard as dealt, (n,) int32.
        edges: first member of each dealt shard, and the end, (shards + 1,) int64.
    """

    members: np.ndarray
    edges: np.ndarray
    portions: Portions
    lanes: Lanes

    @functools.cached_property
    def length(self) -> int:
        """Draws of a pass, the same for all."""
        return self.portions.length

    def number_at(self, lane: int, draw: int) -> int:
        """The pass that a lane's draw `draw` of its endless stream belongs to."""
        batch, within = divmod(draw, int(self.lanes.sizes[lane]))
        turn = batch * self.lanes.global_batch_size + self.lanes.turn_of(lane, within)
        return turn // self.length

    def reach(self, lane: int) -> np.ndarray:
        """The dealt shards that a lane draws from in any pass, ascending, (n,) int64.

        A pass takes its share of turns from each lane, so that a cut moves from pass to pass by at most a quarter of
        the lanes and two; which samples of a broken weight are drawn moves it by at most one for each such weight.
        """
        slack = self.lanes.count // 4 + 3 + len(self.portions.shares)
        first, last = self.lanes.starts[[lane, lane + 1]] * self.length / self.lanes.global_batch_size
        is_near = (self._line[1:] > first - slack) & (self._line[:-1] < last + slack) & (np.diff(self.edges) > 0)
        return np.flatnonzero(is_near)

    @functools.cached_property
    def _line(self) -> np.ndarray:
        """Draws up to each edge in the mean over passes, (shards + 1,) float64."""
        return np.concatenate([[0], np.cumsum(self.portions.expected())])[self.edges]

    @functools.cached_property
    def at(self) -> Callable[[int], Pass]:
        """`at(number)` is the pass of this number."""
        return functools.lru_cache(4)(self._make)

    def _make(self, number: int) -> Pass:
        draws = self.portions.draws(number)
        if draws is None:
            samples, edges = self.members, self.edges
        else:
            samples = np.repeat(self.members, draws)
            edges = np.concatenate([[0], np.cumsum(draws)])[self.edges]
        begun = self.lanes.given(number * self.length)
        given = self.lanes.given((number + 1) * self.length) - begun
        return Pass(samples, edges, np.concatenate([[0], np.cumsum(given)]), begun)
