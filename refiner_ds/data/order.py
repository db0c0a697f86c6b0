"""Which samples make up global batch k: a pure function of plain values, whatever ranks, nodes or workers there are.

Every bucket has its own endless stream, one shuffled pass over its samples after the other, cut into global batches.
A batch is due when a walk over the whole data set would have filled it; step k takes the k-th due batch. Nothing is
dropped or padded, and a step is found without replaying the steps before it. A batch that straddles two passes may meet
a sample in both; each time it has its own crop, noise and timestep.
"""

import functools
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from refiner_ds.chance import generator_of


@dataclass(frozen=True)
class Draw:
    """One sample as drawn: its index in the split, its bucket, and its position in the endless stream of the run."""

    sample: int
    bucket: int
    position: int


@dataclass(frozen=True)
class Order:
    """The order of a run.

    Attributes:
        bucket_of_sample: bucket index of every sample of the split.
        global_batch_size: samples that one optimizer step takes over all ranks.
    """

    bucket_of_sample: tuple[int, ...]
    global_batch_size: int
    seed: int

    def global_batch(self, step: int) -> list[Draw]:
        """The samples of optimizer step `step` = 0, 1, ..., all of one bucket, in their order over ranks and time."""
        bucket, number = self._due(step)
        members = self._members[bucket]
        first = number * self.global_batch_size
        draws = []
        for i in range(self.global_batch_size):
            epoch, place = divmod(first + i, len(members))
            sample = members[_permutation(len(members), self.seed, bucket, epoch)[place]]
            draws.append(Draw(int(sample), bucket, step * self.global_batch_size + i))
        return draws

    def micro_batches(
        self, first_step: int, last_step: int, micro_batch_size: int, rank: int, size: int
    ) -> Iterator[list[Draw]]:
        """This rank's micro-batches of the steps first_step <= k < last_step, in the order of training."""
        stride = micro_batch_size * size
        for step in range(first_step, last_step):
            draws = self.global_batch(step)
            for start in range(rank * micro_batch_size, self.global_batch_size, stride):
                yield draws[start : start + micro_batch_size]

    def steps_of(self, epochs: float) -> int:
        """Optimizer steps after which `epochs` passes over the split are complete, rounded up."""
        return -int(-epochs * len(self.bucket_of_sample) // self.global_batch_size)

    @functools.cached_property
    def _members(self) -> dict[int, np.ndarray]:
        buckets = np.asarray(self.bucket_of_sample)
        return {int(bucket): np.flatnonzero(buckets == bucket) for bucket in np.unique(buckets)}

    def _due(self, step: int) -> tuple[int, int]:
        """(bucket, number of the batch within the bucket) of the batch that is due step-th.

        Batch j of a bucket with n of N samples is due after (j + 1) N / n batches' worth of walking. Of the batches due
        by `step`, at most `step` exist, and fewer than the number of buckets are missing, so the search is short.
        """
        total = len(self.bucket_of_sample)
        sizes = {bucket: len(members) for bucket, members in self._members.items()}
        taken = {bucket: step * size // total for bucket, size in sizes.items()}
        while True:
            bucket = min(sizes, key=lambda b: (Fraction((taken[b] + 1) * total, sizes[b]), b))
            if sum(taken.values()) == step:
                return bucket, taken[bucket]
            taken[bucket] += 1


@functools.lru_cache(maxsize=16)
def _permutation(count: int, seed: int, bucket: int, epoch: int) -> np.ndarray:
    return generator_of(seed, "order", bucket, epoch).permutation(count)
