"""A refiner in outline: its networks and its training step on the meta device, with shapes and without values."""

import tempfile
from pathlib import Path

import torch
from diffusers import DDPMScheduler
from torch import Tensor, nn
from transformers import CLIPImageProcessor

from refiner_ds.batch import Batch
from refiner_ds.refiners.protocol import Checkpointed
from refiner_ds.refiners.unclip.adapt import adapt
from refiner_ds.refiners.unclip.base import FULL, TINY, Shapes, make_parts
from refiner_ds.refiners.unclip.checkpointing import checkpoint_blocks
from refiner_ds.refiners.unclip.encode import Features, features_of
from refiner_ds.refiners.unclip.hub import folder_of
from refiner_ds.refiners.unclip.objective import Draws, Objective
from refiner_ds.refiners.unclip.options import Adaptation, Recipe
from refiner_ds.refiners.unclip.parts import Parts
from refiner_ds.refiners.unclip.portable.frozen_encoders import Encoders
from refiner_ds.refiners.unclip.portable.mutual_attention import make_refiner
from refiner_ds.refiners.unclip.weights import NETWORKS, sketch_network, told

META = torch.device("meta")
SIZES = {"tiny": TINY, "full": FULL}
"""The shapes that `refiner-ds base --size` makes."""
FROZEN = {"vae": "VAE", "image_encoder": "CLIP image encoder", "text_encoder": "CLIP text encoder"}
"""The parts beside the network that training puts on the device, and stay there."""


class Outline:
    """What training would make of a base: the refiner's surgery done, and set which weights are trained."""

    def __init__(self, parts: Parts, adaptation: Adaptation) -> None:
        """parts: on the meta device; they are changed."""
        self._parts = parts
        with META:
            make_refiner(parts.unet)
            adapt(parts, adaptation)

    @property
    def network(self) -> nn.Module:
        """What is trained."""
        return self._parts.unet

    @property
    def frozen(self) -> dict[str, nn.Module]:
        """The parts beside it, by what people call them."""
        return {called: getattr(self._parts, name) for name, called in FROZEN.items()}

    @property
    def crop_factor(self) -> int:
        """Sides of training crops must be multiples of this many pixels."""
        return Encoders(self._parts).factor

    def place(self, dtype: torch.dtype, checkpointed: Checkpointed) -> None:
        """Gives all parts the precision in which they train, and readies the network for it."""
        self._parts.freeze(META, dtype)
        checkpoint_blocks(self._parts.unet.to(dtype).train(), checkpointed)

    def encode(self, size: int, crop: int) -> Features:
        """Features of `size` samples of `crop` x `crop` pixels."""
        pictures = torch.empty(size, 3, crop, crop, dtype=torch.uint8, device=META)
        batch = Batch(pictures, pictures, pictures, positions=tuple(range(size)), keys=("",) * size)
        return features_of(Encoders(self._parts), batch)

    def loss(self, dtype: torch.dtype, features: Features) -> Tensor:
        """The loss of one micro-batch, by the objective that training has."""
        size, latent = len(features.gt), features.gt.shape[1:]
        told_to = self._parts.text_encoder.config
        text = torch.empty(1, told_to.max_position_embeddings, told_to.hidden_size, device=META)
        draws = Draws(
            noise=torch.empty(2 * size, *latent, device=META),
            embedding_noise=torch.empty_like(features.embedding),
            timesteps=torch.empty(2 * size, dtype=torch.int64, device=META),
            keep=torch.empty(size, 3, device=META),
        )
        return Objective(self._parts, text, Recipe(), META).losses(self._parts.unet, dtype, features, draws)["loss"]


def outline_of_base(base: str, revision: str | None, variant: str | None, adaptation: Adaptation) -> Outline:
    """The outline of a base, from its config files.

    A hub id is fetched into the hub's cache as training fetches it; its weights are not read here.

    Raises:
        UserError: there is no such base, or a config in it makes no network.
    """
    folder = folder_of(base, revision, variant)
    networks = {name: sketch_network(base, folder, name) for name in NETWORKS}
    with told(base, "feature_extractor"):
        extractor = CLIPImageProcessor.from_pretrained(folder, subfolder="feature_extractor")
    with META:
        parts = Parts(
            **networks,
            tokenizer=None,
            feature_extractor=extractor,
            scheduler=DDPMScheduler(prediction_type="v_prediction"),  # which one it is changes no tensor's size
            image_noising_scheduler=DDPMScheduler(),
        )
    with told(base, "unet"):
        return Outline(parts, adaptation)


def outline_of_shapes(shapes: Shapes, adaptation: Adaptation) -> Outline:
    """The outline of a base of the given shapes, such as one of `SIZES`."""
    with tempfile.TemporaryDirectory() as scratch, META:
        return Outline(make_parts(shapes, 0, Path(scratch)), adaptation)
