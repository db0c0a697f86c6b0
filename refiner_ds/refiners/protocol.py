"""What training, validation and export know of a refiner: the one door to a family."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from refiner_ds.batch import Batch
from refiner_ds.errors import UserError


@dataclass(frozen=True)
class Sampling:
    """How to repair: number of sampling steps, and guidance between the good and the bad prompt (1 is none)."""

    num_inference_steps: int = 20
    guidance_scale: float = 10.0

    def but(self, num_inference_steps: int | None, guidance_scale: float | None) -> "Sampling":
        """The same with what is given in its place.

        Raises:
            UserError: fewer than one step, or a guidance below 1.
        """
        steps = self.num_inference_steps if num_inference_steps is None else num_inference_steps
        scale = self.guidance_scale if guidance_scale is None else guidance_scale
        if steps < 1:
            raise UserError(f"{steps} sampling steps repair nothing; take at least 1.")
        if not scale >= 1:
            raise UserError(f"guidance {scale} leads away from the good prompt; take 1 for none, or more.")
        return Sampling(steps, scale)


class Refiner(Protocol):
    """A family of refiners: a trained network with its frozen parts around it."""

    @property
    def network(self) -> nn.Module:
        """What is trained."""

    @property
    def crop_factor(self) -> int:
        """Sides of training crops must be multiples of this many pixels."""

    @property
    def sampling(self) -> Sampling:
        """How this refiner is meant to be sampled."""

    def place(self, device: torch.device, dtype: torch.dtype, whole: bool = False) -> None:
        """Puts the frozen parts, and with `whole` the network too, on the device, ready to repair."""

    def prepare_training(self, condition_dropout: float, source_loss_weight: float) -> None:
        """Sets up the loss; call it once the parts are placed."""

    def encode(self, batch: Batch) -> Any:
        """Features of a batch that is on the device; no gradients."""

    def loss(self, network: Any, dtype: torch.dtype, features: Any, seed: int) -> dict[str, Tensor]:
        """Named fp32 scalars: `loss` to go back from, the others for the log."""

    def repair(self, render: Tensor, cond: Tensor, seeds: list[int], sampling: Sampling) -> Tensor:
        """(B, 3, H, W) uint8 renders and references of any size to repaired pictures of the same shape."""

    def save(self, folder: Path, weights: dict[str, Tensor] | None = None) -> None:
        """Writes a folder that the family's constructor loads; `weights` replace the network's own."""
