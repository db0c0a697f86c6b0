"""Portions: how often each sample of a bucket is drawn in a pass, from its weight."""

from dataclasses import dataclass

import numpy as np

from refiner_ds.data.ordering.permutation import shuffled


@dataclass(frozen=True)
class Share:
    """Samples of which `count` are drawn once more in every pass, each getting its turn.

    Attributes:
        members: the samples' places in the bucket, (n,) int32: shard by shard, in a random order within each.
    """

    members: np.ndarray
    count: int

    def chosen(self, number: int) -> np.ndarray:
        """Places of the samples that get one more in pass `number`, (count,) int32.

        They are spread evenly over the shards (as Bresenham's line spreads its steps), and the pattern moves on by one
        place a pass: any ceil(n / count) passes in a row give every sample its turn, any n passes `count` turns.
        """
        size = len(self.members)
        return self.members[(np.arange(size) + number % size) * self.count % size < self.count]


@dataclass(frozen=True)
class Portions:
    """How often each of the n samples of a bucket is drawn in a pass.

    A sample of weight w is drawn floor(w) times, and once more in its share of the passes. Every pass has equally many
    draws; so the samples of one weight and bucket together get their weight to within one draw a pass, at least one.

    Attributes:
        whole: (n,) int64, or None where every sample is drawn exactly once.
    """

    whole: np.ndarray | None
    shares: tuple[Share, ...]
    size: int

    @classmethod
    def of(cls, weights: np.ndarray, shards: np.ndarray, seed: int, bucket: int) -> "Portions":
        """Portions of a bucket's samples with these weights, > 0 and few distinct ones, (n,); their shards ascend."""
        if np.all(weights == 1):
            return cls(None, (), len(weights))
        whole = np.floor(weights)
        rest = weights - whole
        mixed = np.lexsort((shuffled(len(weights), seed, "turns", bucket), shards)).astype(np.int32)
        shares = []
        for part in np.unique(rest[rest > 0]):
            members = mixed[rest[mixed] == part]
            shares.append(Share(members, max(1, round(float(part) * len(members)))))
        return cls(whole.astype(np.int64), tuple(shares), len(weights))

    @property
    def length(self) -> int:
        """Draws of one pass."""
        whole = self.size if self.whole is None else int(self.whole.sum())
        return whole + sum(share.count for share in self.shares)

    def draws(self, number: int) -> np.ndarray | None:
        """How often each sample is drawn in pass `number`, (n,) int64; None where each is drawn once."""
        if self.whole is None:
            return None
        draws = self.whole.copy()
        for share in self.shares:
            draws[share.chosen(number)] += 1
        return draws

    def expected(self) -> np.ndarray:
        """Draws a pass of each sample in the mean over many passes, (n,) float64."""
        draws = np.ones(self.size) if self.whole is None else self.whole.astype(np.float64)
        for share in self.shares:
            draws[share.members] += share.count / len(share.members)
        return draws
