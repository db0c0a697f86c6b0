"""The unCLIP refiner as training meets it: encode, loss, repair, save. Wires the rooms beside it."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from refiner_ds.batch import Batch
from refiner_ds.refiners.protocol import Sampling
from refiner_ds.refiners.unclip.encode import Encoder, Features
from refiner_ds.refiners.unclip.network import make_refiner
from refiner_ds.refiners.unclip.objective import Objective, draw
from refiner_ds.refiners.unclip.parts import load_parts, write_sampling
from refiner_ds.refiners.unclip.repair import UnclipRefinerPipeline, repair


class UnclipRefiner:
    """A refiner made of a checkpoint folder or hub id; its `network` is what is trained, all else is frozen.

    Raises:
        UserError: the base is no unCLIP checkpoint.
    """

    def __init__(self, base: str) -> None:
        self._parts = load_parts(base)
        make_refiner(self._parts.unet)
        self._encoder = Encoder(self._parts)
        self._objective: Objective | None = None
        self._dropout = 0.0

    @property
    def network(self) -> nn.Module:
        """The trained UNet, in whatever precision and place it was put."""
        return self._parts.unet

    @property
    def crop_factor(self) -> int:
        """Sides of training crops must be multiples of this many pixels."""
        return self._encoder.factor

    @property
    def sampling(self) -> Sampling:
        """How this refiner is meant to be sampled: as its folder says, else 20 steps with guidance 10."""
        return self._parts.sampling

    def place(self, device: torch.device, dtype: torch.dtype, whole: bool = False) -> None:
        """Puts the frozen parts, and with `whole` the network too, on the device."""
        self._parts.freeze(device, dtype)
        if whole:
            self._parts.unet.requires_grad_(False).eval().to(device, dtype)

    def prepare_training(self, condition_dropout: float, source_loss_weight: float) -> None:
        """Encodes the empty prompt and sets up the loss; call it once the parts are placed."""
        null_text = self._encoder.text([""])
        self._objective = Objective(self._parts, null_text, source_loss_weight, null_text.device)
        self._dropout = condition_dropout

    def encode(self, batch: Batch) -> Features:
        """Latents and embedding of a batch that is on the device."""
        return self._encoder.features(batch)

    def loss(self, network: Any, dtype: torch.dtype, features: Features, seed: int) -> dict[str, Tensor]:
        """Named fp32 scalars of one micro-batch; `loss` is the one to go back from, the others are for the log.

        Args:
            network: the UNet, or the engine that wraps it.
            seed: the run's; with the samples' positions it decides noise, timesteps and dropout.
        """
        assert self._objective is not None, "prepare_training comes first"
        latent, embedding = features.gt.shape[1:], features.embedding.shape[1]
        draws = draw(
            features.positions,
            seed,
            latent,
            embedding,
            self._objective.num_timesteps,
            self._dropout,
            features.gt.device,
        )
        return self._objective.losses(network, dtype, features, draws)

    def repair(self, render: Tensor, cond: Tensor, seeds: list[int], sampling: Sampling) -> Tensor:
        """(B, 3, H, W) uint8 renders and references to repaired pictures of the same shape."""
        return repair(self._parts, self._encoder, render, cond, seeds, sampling)

    def save(self, folder: Path, weights: dict[str, Tensor] | None = None) -> None:
        """Writes the whole pipeline in fp32 safetensors; `weights` are taken for the network instead of its own."""
        if weights is not None:
            self._parts.unet.load_state_dict(weights)
        UnclipRefinerPipeline(**self._parts.as_dict()).save_pretrained(folder, safe_serialization=True)
        write_sampling(folder, self.sampling)
