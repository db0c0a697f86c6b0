"""Which samples make up global batch k: a pure function of plain values, whatever ranks, nodes or workers there are.

Every bucket has its own endless stream, one shuffled pass over its samples after the other, cut into global batches.
A batch is due when a walk over the whole data set would have filled it; step k takes the k-th due batch. Nothing is
dropped or padded, and a step is found without replaying the steps before it. A batch that straddles two passes may meet
a sample in both; each time it has its own crop, noise and timestep.

After any step, every sample of weight 1 has been drawn floor(d / n) or ceil(d / n) times, d being the draws made so far
from its bucket of n samples: with lanes, windows and any number of ranks alike. A sample of weight w counts as w.
"""

import functools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np

from refiner_ds.data.ordering.due import Due
from refiner_ds.data.ordering.lanes import Lanes
from refiner_ds.data.ordering.passes import Passes
from refiner_ds.data.ordering.portions import Portions
from refiner_ds.data.ordering.walk import Walk
from refiner_ds.errors import UserError


@dataclass(frozen=True)
class Draw:
    """One sample as drawn: its index in the split, its bucket, and its position in the endless stream of the run."""

    sample: int
    bucket: int
    position: int


@dataclass(frozen=True, eq=False)
class Order:
    """The order of a run.

    Attributes:
        bucket_of_sample: bucket index of every sample of the split, (n,) of any integer type.
        global_batch_size: samples that one optimizer step takes over all ranks.
        shard_of_sample: number of the shard of every sample, (n,) integer; None where locality does not matter.
        weight_of_sample: draws of every sample per pass in the mean, (n,) > 0, few distinct values; None is 1 for all.
        window_shards: a pass goes through windows of at most so many shards and shuffles within them; None shuffles
            over all shards.
        lanes: fixed parts that the shards are dealt into, each of which fills its own places of every global batch. A
            property of the run and never of its ranks; nodes whose number divides it need their own lanes' shards only.

    Raises:
        UserError: a weight, window or number of lanes that leaves nothing to draw.
    """

    bucket_of_sample: np.ndarray | Sequence[int]
    global_batch_size: int
    seed: int
    shard_of_sample: np.ndarray | None = None
    weight_of_sample: np.ndarray | None = None
    window_shards: int | None = None
    lanes: int = 1

    def __post_init__(self) -> None:
        _refuse(self.weight_of_sample, self.window_shards, self.lanes)
        for name in ("bucket_of_sample", "shard_of_sample", "weight_of_sample"):
            if (column := getattr(self, name)) is not None:
                object.__setattr__(self, name, np.asarray(column))
                assert len(column) == len(self.bucket_of_sample), f"{name} has {len(column)} entries"

    def __getstate__(self) -> dict[str, Any]:
        return {field.name: getattr(self, field.name) for field in fields(self)}  # what is derived is derived anew

    def global_batch(self, step: int) -> list[Draw]:
        """The samples of optimizer step `step` = 0, 1, ..., all of one bucket, in their order over ranks and time."""
        return self.draws(step, range(self.global_batch_size))

    def draws(self, step: int, places: range) -> list[Draw]:
        """The draws at adjacent places of the global batch of a step."""
        bucket, number = self.due.at(step)
        samples = self.walks[bucket].draws(number, places).tolist()
        first = step * self.global_batch_size
        return [Draw(sample, bucket, first + place) for sample, place in zip(samples, places, strict=True)]

    def places_of(self, part: int, parts: int) -> range:
        """The adjacent places of every global batch that fall to a rank of all ranks, or to a node of equal nodes."""
        size = self.global_batch_size
        return range(part * size // parts, (part + 1) * size // parts)

    def micro_batches(
        self, first_step: int, last_step: int, micro_batch_size: int, rank: int, size: int
    ) -> Iterator[list[Draw]]:
        """This rank's micro-batches of the steps first_step <= k < last_step, in the order of training."""
        assert self.global_batch_size % (micro_batch_size * size) == 0, "a global batch is whole micro-batches"
        places = self.places_of(rank, size)
        for step in range(first_step, last_step):
            draws = self.draws(step, places)
            for start in range(0, len(places), micro_batch_size):
                yield draws[start : start + micro_batch_size]

    def steps_of(self, epochs: float) -> int:
        """Optimizer steps after which `epochs` passes over the split are complete, rounded up."""
        return -int(-epochs * self.due.total // self.global_batch_size)

    @functools.cached_property
    def samples_by_bucket(self) -> dict[int, int]:
        """How many samples every bucket has."""
        buckets, counts = np.unique(self.bucket_of_sample, return_counts=True)
        return dict(zip(buckets.tolist(), counts.tolist(), strict=True))

    @functools.cached_property
    def due(self) -> Due:
        """Which bucket comes at which step."""
        return Due({bucket: passes.length for bucket, passes in self._passes.items()})

    @functools.cached_property
    def shards(self) -> np.ndarray:
        """Numbers of the split's shards in the order in which they are dealt, (shards,): the first lane's first.

        Dealt like cards, so that every lane has its share of every stretch of the index; where lanes differ in size,
        a shard at the border serves both neighbours.
        """
        shards = np.zeros(1, np.int64) if self.shard_of_sample is None else np.unique(self.shard_of_sample)
        return shards[np.argsort(np.arange(len(shards)) % self.lanes, kind="stable")]

    @functools.cached_property
    def walks(self) -> dict[int, Walk]:
        """The endless stream of every bucket."""
        territories = tuple(
            np.unique(np.concatenate([passes.reach(lane) for passes in self._passes.values()]))
            for lane in range(self.lanes)
        )
        return {
            bucket: Walk(bucket, passes, territories, self.window_shards, self.seed)
            for bucket, passes in self._passes.items()
        }

    @functools.cached_property
    def _passes(self) -> dict[int, Passes]:
        buckets, lanes = np.asarray(self.bucket_of_sample), Lanes(self.lanes, self.global_batch_size)
        dealt = self._dealt_shard_of_sample()
        line = np.argsort(dealt, kind="stable").astype(np.int32)
        found = {}
        for bucket in self.samples_by_bucket:
            members = line[buckets[line] == bucket]
            shards = dealt[members]
            weights = np.ones(len(members)) if self.weight_of_sample is None else self.weight_of_sample[members]
            edges = np.searchsorted(shards, np.arange(len(self.shards) + 1))
            found[bucket] = Passes(members, edges, Portions.of(weights, shards, self.seed, bucket), lanes)
        return found

    def _dealt_shard_of_sample(self) -> np.ndarray:
        """The place of every sample's shard in `shards`, (n,) int32."""
        if self.shard_of_sample is None:
            return np.zeros(len(self.bucket_of_sample), np.int32)
        place = np.empty(int(self.shards.max()) + 1, np.int32)
        place[self.shards] = np.arange(len(self.shards))
        return place[self.shard_of_sample]


def _refuse(weights: np.ndarray | None, window_shards: int | None, lanes: int) -> None:
    if lanes < 1:
        raise UserError(f"lanes {lanes}: shards cannot be dealt into fewer than one part; take 1, or more.")
    if window_shards is not None and window_shards < 1:
        raise UserError(f"window_shards {window_shards}: no sample lies in so few shards; take 1 or more, or none.")
    if weights is not None and not np.all(np.isfinite(weights) & (np.asarray(weights) > 0)):
        raise UserError(
            f"weight {np.min(weights)}: its samples would never be drawn, or always; take weights above 0, or leave "
            "the dataset out."
        )
