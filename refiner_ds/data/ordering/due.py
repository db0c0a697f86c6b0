"""Which bucket's batch is due at which step: a merge of endless streams, each at the pace of its share."""

import heapq
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction

import numpy as np


@dataclass(frozen=True)
class Due:
    """The turns of buckets, from the number of draws that one pass over each takes.

    Batch j of a bucket with n of N draws is due after (j + 1) N / n batches' worth of walking over the whole split;
    step k takes the k-th due batch. Ties go to the lower bucket.
    """

    sizes: Mapping[int, int]

    @property
    def total(self) -> int:
        """Draws of one pass over all buckets."""
        return sum(self.sizes.values())

    def at(self, step: int) -> tuple[int, int]:
        """(bucket, number of the batch within the bucket) of step `step` = 0, 1, ..."""
        taken, queue = self._walked(step)
        bucket = queue[0][1]
        return bucket, taken[bucket]

    def before(self, step: int) -> dict[int, int]:
        """Batches that each bucket has given in the steps 0..step-1."""
        return self._walked(step)[0]

    def step_of(self, bucket: int, numbers: np.ndarray) -> np.ndarray:
        """The steps at which the batches `numbers` of a bucket come, (n,) int64: the inverse of `at`."""
        numbers = np.asarray(numbers, np.int64)
        steps, own = numbers.copy(), self.sizes[bucket]
        for other, size in self.sizes.items():
            if other < bucket:
                steps += (numbers + 1) * size // own
            elif other > bucket:
                steps += -(-(numbers + 1) * size // own) - 1
        return steps

    def _walked(self, step: int) -> tuple[dict[int, int], list[tuple[Fraction, int]]]:
        """Batches taken by each bucket before `step`, and the heap of (when the next is due, bucket).

        Of the batches due by `step`, at most `step` exist and fewer than the number of buckets are missing, so the
        search is short.
        """
        taken = {bucket: step * size // self.total for bucket, size in self.sizes.items()}
        queue = [(self._time(bucket, number), bucket) for bucket, number in taken.items()]
        heapq.heapify(queue)
        for _ in range(step - sum(taken.values())):
            bucket = queue[0][1]
            taken[bucket] += 1
            heapq.heapreplace(queue, (self._time(bucket, taken[bucket]), bucket))
        return taken, queue

    def _time(self, bucket: int, number: int) -> Fraction:
        return Fraction((number + 1) * self.total, self.sizes[bucket])
