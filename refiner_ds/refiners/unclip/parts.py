"""The parts of a checkpoint in the layout of stable-diffusion-2-1-unclip: loading them, refusing what is not one."""

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, DDPMScheduler, UNet2DConditionModel
from diffusers import schedulers as diffusers_schedulers
from diffusers.pipelines.stable_diffusion.stable_unclip_image_normalizer import StableUnCLIPImageNormalizer
from huggingface_hub import snapshot_download
from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError
from transformers import CLIPImageProcessor, CLIPTextModel, CLIPTokenizer, CLIPVisionModelWithProjection

from refiner_ds.errors import UserError
from refiner_ds.refiners.protocol import Sampling

INDEX = "model_index.json"
SAMPLING = "sampling.json"
"""How the checkpoint is meant to be sampled; without it, GaussianRefiner's 20 steps and guidance 10."""

NAMES = (
    "vae",
    "text_encoder",
    "tokenizer",
    "unet",
    "scheduler",
    "feature_extractor",
    "image_encoder",
    "image_normalizer",
    "image_noising_scheduler",
)


@dataclass
class Parts:
    """Everything in the folder; all but the UNet stays frozen."""

    vae: AutoencoderKL
    text_encoder: CLIPTextModel
    tokenizer: CLIPTokenizer
    unet: UNet2DConditionModel
    scheduler: Any
    feature_extractor: CLIPImageProcessor
    image_encoder: CLIPVisionModelWithProjection
    image_normalizer: StableUnCLIPImageNormalizer
    image_noising_scheduler: DDPMScheduler
    sampling: Sampling = field(default_factory=Sampling)

    def as_dict(self) -> dict[str, Any]:
        """The parts by name, as a diffusers pipeline registers them."""
        return {name: getattr(self, name) for name in NAMES}

    def freeze(self, device: torch.device, dtype: torch.dtype) -> None:
        """Puts every network but the UNet on the device, without gradients and in evaluation mode."""
        for module in (self.vae, self.text_encoder, self.image_encoder):
            module.requires_grad_(False).eval().to(device, dtype)
        self.image_normalizer.requires_grad_(False).to(device, torch.float32)


def load_parts(base: str) -> Parts:
    """Loads a base or refiner checkpoint in fp32 on the CPU: a local folder, or a hub id.

    Raises:
        UserError: no such folder, no unCLIP checkpoint, or a part that is missing or does not fit the others.
    """
    folder = _folder(base)
    _require_unclip(base, folder)
    try:
        _require_fit(base, folder)
        return Parts(
            vae=AutoencoderKL.from_pretrained(folder, subfolder="vae"),
            text_encoder=CLIPTextModel.from_pretrained(folder, subfolder="text_encoder"),
            tokenizer=CLIPTokenizer.from_pretrained(folder, subfolder="tokenizer"),
            unet=UNet2DConditionModel.from_pretrained(folder, subfolder="unet"),
            scheduler=_scheduler(folder, "scheduler"),
            feature_extractor=CLIPImageProcessor.from_pretrained(folder, subfolder="feature_extractor"),
            image_encoder=CLIPVisionModelWithProjection.from_pretrained(folder, subfolder="image_encoder"),
            image_normalizer=StableUnCLIPImageNormalizer.from_pretrained(folder, subfolder="image_normalizer"),
            image_noising_scheduler=_scheduler(folder, "image_noising_scheduler"),
            sampling=_read_sampling(Path(folder) / SAMPLING),
        )
    except UserError:
        raise
    except (OSError, KeyError, ValueError, RuntimeError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(f"model {base} cannot be loaded ({reason}); download, make or export it again.") from error


def write_sampling(folder: Path, sampling: Sampling) -> None:
    """Notes beside the parts how they are meant to be sampled."""
    (folder / SAMPLING).write_text(json.dumps(asdict(sampling)) + "\n", encoding="utf-8")


def _read_sampling(path: Path) -> Sampling:
    return Sampling(**json.loads(path.read_text(encoding="utf-8"))) if path.exists() else Sampling()


def _folder(base: str) -> str:
    if Path(base).is_dir():
        return base
    if base.count("/") != 1 or base.startswith((".", "/", "~")):
        raise UserError(
            f"model {base} is no folder, so there are no networks to load; name a checkpoint folder or a hub id."
        )
    try:
        return snapshot_download(
            base, allow_patterns=["*.json", "*.txt", "*.safetensors", "*.bin"], ignore_patterns=["*fp16*"]
        )
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
        raise UserError(
            f"model {base} is neither a folder here nor to be had from the hub ({str(error).splitlines()[0]}); "
            "name a folder, or a hub id while the hub can be reached."
        ) from error


def _require_unclip(base: str, folder: str) -> None:
    path = Path(folder) / INDEX
    try:
        index = dict(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, TypeError, ValueError) as error:
        raise UserError(
            f"model {base} has no readable {INDEX}, so it is no diffusers checkpoint; "
            "name a folder in the layout of stable-diffusion-2-1-unclip, as `refiner-ds base` makes."
        ) from error
    missing = [name for name in NAMES if index.get(name, [None])[0] is None or not (Path(folder) / name).is_dir()]
    if missing:
        raise UserError(
            f"model {base} is a {index.get('_class_name')} without {', '.join(missing)}, so it is no unCLIP "
            "checkpoint; take one in the layout of stable-diffusion-2-1-unclip."
        )


def _scheduler(folder: str, name: str) -> Any:
    config = json.loads((Path(folder) / name / "scheduler_config.json").read_text(encoding="utf-8"))
    return getattr(diffusers_schedulers, config["_class_name"]).from_config(config)


def _require_fit(base: str, folder: str) -> None:
    """Compares the dimensions at which the parts meet, from their configs."""
    unet, vae, text, image, normalizer = (
        json.loads((Path(folder) / name / "config.json").read_text(encoding="utf-8"))
        for name in ("unet", "vae", "text_encoder", "image_encoder", "image_normalizer")
    )
    embedding = image["projection_dim"]
    meetings = (
        ("unet's out_channels", unet["out_channels"], "vae's latent_channels", vae["latent_channels"]),
        ("unet's cross_attention_dim", unet["cross_attention_dim"], "text_encoder's hidden_size", text["hidden_size"]),
        (
            *("unet's projection_class_embeddings_input_dim", unet["projection_class_embeddings_input_dim"]),
            *("twice the image_encoder's projection_dim", 2 * embedding),
        ),
        (
            *("image_normalizer's embedding_dim", normalizer["embedding_dim"]),
            *("image_encoder's projection_dim", embedding),
        ),
    )
    for name, value, other, expected in meetings:
        if value != expected:
            raise UserError(
                f"model {base}: {name} is {value} and {other} is {expected}, so the parts do not fit together; "
                "take all parts from one checkpoint."
            )
