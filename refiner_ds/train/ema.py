"""A moving average of the weights, kept where they are: each rank averages its own shard of the fp32 masters."""

from collections.abc import Sequence

import torch
from torch import Tensor

SWAPPED_AT_ONCE = 1 << 24
"""Elements, so that exchanging takes 64 MiB more and not another copy of the shard."""


class Ema:
    """Exponential moving average of this rank's shards, with a decay that warms up.

    After update n = 0, 1, ... average += (1 - decay(n)) (weights - average), with decay(n) = min(decay, (1 + n) /
    (10 + n)): the average of a short run is not that of its first weights (TensorFlow's ExponentialMovingAverage,
    num_updates; diffusers' EMAModel takes the same).
    """

    def __init__(self, masters: Sequence[Tensor], decay: float) -> None:
        """masters: flat fp32 shards, one for each group of parameters; the average starts as their copy."""
        self._masters = list(masters)
        self._decay = decay
        self.shards = [shard.detach().clone() for shard in self._masters]
        self.updates = 0

    @torch.no_grad()
    def update(self) -> None:
        """To be called after each update of the weights that was not skipped."""
        decay = min(self._decay, (1 + self.updates) / (10 + self.updates))
        torch._foreach_lerp_(self.shards, [shard.detach() for shard in self._masters], 1 - decay)
        self.updates += 1

    @torch.no_grad()
    def swap(self) -> None:
        """Exchanges averages and weights; a second call takes it back."""
        for shard, master in zip(self.shards, self._masters, strict=True):
            for average, weights in zip(shard.split(SWAPPED_AT_ONCE), master.split(SWAPPED_AT_ONCE), strict=True):
                kept = weights.clone()
                weights.copy_(average)
                average.copy_(kept)
