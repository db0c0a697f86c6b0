"""The unCLIP refiner as training meets it: encode, loss, repair, save. Wires the rooms beside it."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from refiner_ds.batch import Batch
from refiner_ds.chance import key_of
from refiner_ds.errors import UserError
from refiner_ds.refiners.protocol import Checkpointed, Sampling
from refiner_ds.refiners.unclip.adapt import adapt, merge, write_adapter
from refiner_ds.refiners.unclip.checkpointing import checkpoint_blocks
from refiner_ds.refiners.unclip.encode import Features, features_of
from refiner_ds.refiners.unclip.hub import folder_of
from refiner_ds.refiners.unclip.objective import CONDITIONS, Objective, draw, draw_few
from refiner_ds.refiners.unclip.options import Adaptation, Recipe
from refiner_ds.refiners.unclip.parts import Parts, load_parts
from refiner_ds.refiners.unclip.portable.unclip_refiner_pipeline import UnclipRefinerPipeline
from refiner_ds.refiners.unclip.precision import cast, cast_network
from refiner_ds.refiners.unclip.weights import NETWORKS, fingerprint, weights_of

ENCODERS = ("vae", "image_encoder")
"""The parts that encode pictures."""


class UnclipRefiner:
    """A refiner made of a checkpoint folder or hub id; its `network` is what is trained, all else is frozen.

    Raises:
        UserError: the base is no unCLIP checkpoint, or cannot be adapted so.
    """

    def __init__(
        self,
        base: str,
        revision: str | None = None,
        variant: str | None = None,
        adaptation: Adaptation | None = None,
        frozen_dtype: torch.dtype = torch.float32,
        has_encoders: bool = True,
    ) -> None:
        """
        Args:
            frozen_dtype: precision of all parts but the network, each cast once it is loaded.
            has_encoders: whether the encoders of pictures are loaded; without them it trains from latents alone.
        """
        self._source = base, revision, variant
        self._parts = load_parts(base, revision, variant, frozen_dtype, () if has_encoders else ENCODERS)
        self.base_fingerprint = fingerprint(self._parts.unet.state_dict())
        """Tells the base's UNet from others, before anything was done to it."""
        self._pipeline = _pipeline(self._parts)
        self._parts.unet.requires_grad_(True)  # until it is adapted otherwise, or placed for repairing alone
        if adaptation:
            adapt(self._parts, adaptation)
            self._pipeline.scheduler = self._parts.scheduler
        self._recipe = Recipe()
        self._objective: Objective | None = None

    @property
    def network(self) -> nn.Module:
        """The trained UNet, in whatever precision and place it was put."""
        return self._parts.unet

    @property
    def crop_factor(self) -> int:
        """Sides of training crops must be multiples of this many pixels."""
        return self._pipeline.encoders.factor

    def sampling(
        self,
        num_inference_steps: int | None = None,
        guidance_scale: float | None = None,
        tile_size: int | None = None,
    ) -> Sampling:
        """How this refiner is meant to be sampled by its folder, else 20 steps and guidance 10; with what is given.

        Raises:
            UserError: it would repair nothing.
        """
        sampling = self._parts.sampling.but(num_inference_steps, guidance_scale, tile_size)
        with _told():
            self._pipeline.require_sampling(sampling.num_inference_steps, sampling.guidance_scale, sampling.tile_size)
        return sampling

    @property
    def encoders_fingerprint(self) -> str:
        """Tells the frozen encoders of pictures from others; to be asked before they are cast."""
        weights = {part: self._weights_of(part) for part in ENCODERS}
        return fingerprint({f"{part}.{name}": each for part, own in weights.items() for name, each in own.items()})

    def _weights_of(self, part: str) -> Mapping[str, Tensor]:
        network, (base, revision, variant) = getattr(self._parts, part), self._source
        if not next(network.parameters()).is_meta:
            return network.state_dict()
        return weights_of(base, folder_of(base, revision, variant), part, variant, network)

    @property
    def scaling_factor(self) -> float:
        """What the VAE's latents are multiplied with."""
        return float(self._parts.vae.config.scaling_factor)

    @property
    def latent_channels(self) -> int:
        """Channels c of a latent."""
        return int(self._parts.vae.config.latent_channels)

    @property
    def embedding_size(self) -> int:
        """Length d of an image embedding."""
        return int(self._parts.image_encoder.config.projection_dim)

    def latents(self, pictures: Tensor) -> Tensor:
        """(B, 3, H, W) uint8 on the device to scaled latents (B, c, h, w) fp32; sides multiples of `crop_factor`."""
        return self._pipeline.encoders.latents(pictures)

    def embedding(self, pictures: Tensor) -> Tensor:
        """(B, 3, H, W) uint8 on the device to image embeddings (B, d) fp32."""
        return self._pipeline.encoders.embedding(pictures)

    def leave_out_encoders(self) -> None:
        """Frees the encoders of pictures; from now on it trains from latents alone, and repairs nothing."""
        for part in ENCODERS:
            setattr(self._parts, part, None)
            setattr(self._pipeline, part, None)

    def place(self, device: torch.device, dtype: torch.dtype, whole: bool = False) -> None:
        """Puts the frozen parts, and with `whole` the network too, on the device."""
        self._parts.freeze(device, dtype)
        if whole:
            self._parts.unet.requires_grad_(False).eval().to(device, dtype)

    def prepare_training(self, recipe: Recipe, checkpointed: Checkpointed = "nothing") -> None:
        """Encodes the empty prompt and sets up the loss; call it once the parts are placed.

        The `checkpointed` blocks of the network compute their activations a second time on the way back instead of
        keeping them.
        """
        text_encoder = self._parts.text_encoder
        null_text = self._pipeline.encoders.text([""], text_encoder.device)
        self._recipe = recipe
        self._objective = Objective(self._parts, null_text, recipe, null_text.device)
        checkpoint_blocks(self._parts.unet, checkpointed)

    def encode(self, batch: Batch) -> Features:
        """Latents and embedding of a batch that is on the device."""
        return features_of(self._pipeline.encoders, batch)

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
            self._recipe,
            features.gt.device,
        )
        return self._objective.losses(network, dtype, features, draws)

    def drawn(self, positions: Sequence[int], seed: int) -> list[dict[str, Any]]:
        """Timestep of the target row, and names of the dropped conditions, of each sample."""
        assert self._objective is not None, "prepare_training comes first"
        num_timesteps = self._objective.num_timesteps
        draws = [draw_few(position, seed, num_timesteps, self._recipe) for position in positions]
        return [
            {
                "timestep": timestep,
                "dropped": [name for name, is_kept in zip(CONDITIONS, keep, strict=True) if not is_kept],
            }
            for timestep, keep in draws
        ]

    def use_scheduler(self, name: str) -> None:
        """Swaps the sampler for another one of diffusers by its class name.

        Raises:
            UserError: there is none of this name that could take its place.
        """
        with _told("--"):
            self._pipeline.use_scheduler(name)

    def repair(self, render: Tensor, references: Tensor, seeds: list[int], sampling: Sampling) -> Tensor:
        """(B, 3, H, W) renders and (B, R, 3, H, W) references, uint8, to repaired pictures (B, 3, H, W) uint8.

        The noise is drawn on the CPU, from the seeds alone: the same on any device and in any batch.
        """
        generators = [torch.Generator().manual_seed(key_of(seed, "repair")) for seed in seeds]
        with _told():
            return self._pipeline.repair(
                render,
                references,
                generators,
                sampling.num_inference_steps,
                sampling.guidance_scale,
                sampling.tile_size,
            )

    def load_weights(self, weights: Iterable[tuple[str, Tensor]]) -> None:
        """Copies weights over those of the network of their names, one at a time, as they come.

        Raises:
            UserError: one is too large for the precision that the network is in.
        """
        own = self._parts.unet.state_dict()
        for name, weight in weights:
            cast([(name, weight)], "unet", own[name].dtype)
            own[name].copy_(weight)

    def cast(self, dtype: torch.dtype) -> None:
        """Puts all parts into one precision, in place.

        Raises:
            UserError: a weight is too large for the precision.
        """
        for name in NETWORKS:
            cast_network(getattr(self._parts, name), name, dtype)

    def merge(self) -> None:
        """Adds low-rank updates to the weights that they update; the network computes what it did."""
        merge(self._parts.unet)

    def save(self, folder: Path, dtype: torch.dtype = torch.float32) -> None:
        """Writes the whole pipeline in safetensors of one precision, low-rank updates merged.

        Raises:
            UserError: a weight is too large for the precision.
        """
        self.merge()
        self.cast(dtype)
        self._pipeline.save_pretrained(folder, safe_serialization=True)

    def save_adapter(self, folder: Path, dtype: torch.dtype = torch.float32) -> None:
        """Writes what was trained of a network with low-rank updates, without its base.

        Raises:
            UserError: a weight is too large for the precision.
        """
        trained = [(name, weight) for name, weight in self._parts.unet.named_parameters() if weight.requires_grad]
        cast(trained, "unet", dtype)
        write_adapter(self._parts.unet, folder)


def _pipeline(parts: Parts) -> UnclipRefinerPipeline:
    sampling = parts.sampling
    with _told():
        pipeline = UnclipRefinerPipeline(
            **parts.as_dict(),
            num_inference_steps=sampling.num_inference_steps,
            guidance_scale=sampling.guidance_scale,
        )
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


@contextmanager
def _told(before: str = "") -> Iterator[None]:
    """Makes the pipeline's refusals, and a lack of memory, a sentence for a person."""
    try:
        yield
    except torch.OutOfMemoryError as error:
        raise UserError(
            "the pictures do not fit into the GPU's memory at once; give a smaller --tile_size, such as 768."
        ) from error
    except ValueError as error:
        raise UserError(f"{before}{error}") from error
