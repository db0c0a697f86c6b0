"""What training, validation and export know of a refiner: the one door to a family."""

from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from refiner_ds.batch import Batch


class Refiner(Protocol):
    """A family of refiners: a trained network with its frozen parts around it."""

    @property
    def network(self) -> nn.Module:
        """What is trained."""

    @property
    def crop_factor(self) -> int:
        """Sides of training crops must be multiples of this many pixels."""

    def place(self, device: torch.device, dtype: torch.dtype, whole: bool = False) -> None:
        """Puts the frozen parts, and with `whole` the network too, on the device, ready to repair."""

    def prepare_training(self, condition_dropout: float, source_loss_weight: float) -> None:
        """Sets up the loss; call it once the parts are placed."""

    def encode(self, batch: Batch) -> Any:
        """Features of a batch that is on the device; no gradients."""

    def loss(self, network: Any, dtype: torch.dtype, features: Any, seed: int) -> dict[str, Tensor]:
        """Named fp32 scalars: `loss` to go back from, the others for the log."""

    def repair(
        self, render: Tensor, cond: Tensor, seeds: list[int], num_inference_steps: int, guidance_scale: float
    ) -> Tensor:
        """(B, 3, H, W) uint8 renders and references of any size to repaired pictures of the same shape."""

    def save(self, folder: Path, weights: dict[str, Tensor] | None = None) -> None:
        """Writes a folder that the family's constructor loads; `weights` replace the network's own."""
