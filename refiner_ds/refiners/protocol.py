"""What training, validation and export know of a refiner: the one door to a family."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

import torch
from torch import Tensor, nn

from refiner_ds.batch import Batch

Checkpointed = Literal["nothing", "attention", "all"]
"""Blocks of a network that compute their activations a second time on the way back instead of keeping them: those of
attention, with their feed-forward layers, or every one that can."""


@dataclass(frozen=True)
class Sampling:
    """How to repair: number of sampling steps, guidance between the bad and the good prompt (1 is none), tiles.

    Pictures larger than `tile_size` pixels are worked on in overlapping tiles of that side, if it is given.
    """

    num_inference_steps: int = 20
    guidance_scale: float = 10.0
    tile_size: int | None = None

    def __str__(self) -> str:
        tiles = f", tiles of {self.tile_size} pixels" if self.tile_size else ""
        return f"{self.num_inference_steps} steps, guidance {self.guidance_scale:g}{tiles}"

    def but(self, num_inference_steps: int | None, guidance_scale: float | None, tile_size: int | None) -> "Sampling":
        """The same with what is given in its place."""
        return Sampling(
            self.num_inference_steps if num_inference_steps is None else num_inference_steps,
            self.guidance_scale if guidance_scale is None else guidance_scale,
            self.tile_size if tile_size is None else tile_size,
        )


class Refiner(Protocol):
    """A family of refiners: a trained network with its frozen parts around it."""

    @property
    def network(self) -> nn.Module:
        """What is trained."""

    @property
    def crop_factor(self) -> int:
        """Sides of training crops must be multiples of this many pixels."""

    def sampling(
        self,
        num_inference_steps: int | None = None,
        guidance_scale: float | None = None,
        tile_size: int | None = None,
    ) -> Sampling:
        """How this refiner is meant to be sampled, but for what is given; refuses what repairs nothing."""

    def place(self, device: torch.device, dtype: torch.dtype, whole: bool = False) -> None:
        """Puts the frozen parts, and with `whole` the network too, on the device, ready to repair."""

    def prepare_training(self, recipe: Any, checkpointed: Checkpointed = "nothing") -> None:
        """Sets up the loss by the family's own recipe; call it once the parts are placed."""

    def encode(self, batch: Batch) -> Any:
        """Features of a batch that is on the device; no gradients."""

    def loss(self, network: Any, dtype: torch.dtype, features: Any, seed: int) -> dict[str, Tensor]:
        """Named fp32 scalars: `loss` to go back from, the others for the log.

        What has (groups, 2) values is for the log too: the sum and the number of losses of each group, of which there
        may be none in a micro-batch.
        """

    def drawn(self, positions: Sequence[int], seed: int) -> list[dict[str, Any]]:
        """What chance decides for the loss of each sample, by name, as JSON has it: to be told, not computed with."""

    def use_scheduler(self, name: str) -> None:
        """Swaps the sampler for another one by its name."""

    def repair(self, render: Tensor, references: Tensor, seeds: list[int], sampling: Sampling) -> Tensor:
        """Renders (B, 3, H, W) and R references of each (B, R, 3, H, W), uint8 of any size, to (B, 3, H, W) uint8."""

    def load_weights(self, weights: Iterable[tuple[str, Tensor]]) -> None:
        """Copies weights over those of the network of their names, one at a time, as they come."""

    def save(self, folder: Path, dtype: torch.dtype = torch.float32) -> None:
        """Writes a folder that the family's constructor loads, all weights in one precision."""


def scalars(losses: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The losses that are one figure each."""
    return {name: loss for name, loss in losses.items() if not loss.dim()}
