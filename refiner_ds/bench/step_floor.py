"""The floor under the training step: forward, backward and torch's AdamW on features that are there, nothing else."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from refiner_ds.bench.turns import Way
from refiner_ds.refiners.protocol import Refiner


class BareLoop(Way):
    """The refiner's own loss of its network, without engine, sharding, clipping, log and encoders.

    In 16 bits the weights, their gradients and AdamW's moments are of 16 bits too, so it is no way to train there, only
    the least that a step can take.
    """

    def __init__(
        self,
        refiner: Refiner,
        network: nn.Module,
        dtype: torch.dtype,
        features: Sequence[Any],
        device: torch.device,
        learning_rate: float,
        seed: int,
    ) -> None:
        """features: of each micro-batch of a step, on the device."""
        self._refiner, self._dtype, self._features, self._seed = refiner, dtype, features, seed
        self._network = network.to(device, dtype).train()
        self._optimizer = torch.optim.AdamW(
            self._network.parameters(),
            lr=learning_rate,
            weight_decay=0.01,
            fused=True,
        )

    def step(self) -> Tensor:
        """One update; the loss of the first micro-batch."""
        losses = []
        for features in self._features:
            loss = self._refiner.loss(self._network, self._dtype, features, self._seed)["loss"]
            (loss / len(self._features)).backward()
            losses.append(loss.detach())
        self._optimizer.step()
        self._optimizer.zero_grad()
        return losses[0]
