"""The parts of a checkpoint in the layout of stable-diffusion-2-1-unclip: loading them, refusing what is not one."""

import json
from collections.abc import Collection
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, DDPMScheduler, UNet2DConditionModel
from diffusers import schedulers as diffusers_schedulers
from diffusers.pipelines.stable_diffusion.stable_unclip_image_normalizer import StableUnCLIPImageNormalizer
from transformers import CLIPImageProcessor, CLIPTextModel, CLIPTokenizer, CLIPVisionModelWithProjection

from refiner_ds.errors import UserError
from refiner_ds.refiners.protocol import Sampling
from refiner_ds.refiners.unclip.hub import INDEX, folder_of
from refiner_ds.refiners.unclip.portable.unclip_refiner_pipeline import FORMAT
from refiner_ds.refiners.unclip.precision import cast_network
from refiner_ds.refiners.unclip.weights import NETWORKS, load_network, require_files, sketch_network, told

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
    """Everything in the folder; all but the UNet stays frozen. Encoders of pictures are None once they are left out."""

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
        for module in filter(None, (self.vae, self.text_encoder, self.image_encoder)):
            module.requires_grad_(False).eval().to(device, dtype)
        self.image_normalizer.requires_grad_(False).to(device, torch.float32)


def load_parts(
    base: str,
    revision: str | None = None,
    variant: str | None = None,
    frozen_dtype: torch.dtype = torch.float32,
    sketched: Collection[str] = (),
) -> Parts:
    """Loads a base or refiner checkpoint in fp32 on the CPU, whatever the precision of its files.

    Args:
        base: a local folder, or a hub id, of which only what is needed is downloaded.
        revision: branch, tag or commit of a hub id.
        variant: take the weights of this variant, such as fp16, for every part.
        frozen_dtype: precision of what is not trained; each part takes it once it is loaded, and the UNet, which does
            not, comes last, so that no more than one part is there in both.
        sketched: networks that are made without their weights, on the meta device.

    Raises:
        UserError: no such model or revision, no unCLIP checkpoint, one that a newer refiner_ds has made, or a part that
            is missing, unreadable, not finite or does not fit the others.
    """
    folder = folder_of(base, revision, variant)
    index = _read_index(base, folder)
    _require_unclip(base, folder, index)
    sampling = _read_sampling(base, index)
    _require_fit(base, folder)
    networks = {}
    for name in sorted(NETWORKS, key="unet".__eq__):
        if name in sketched:
            require_files(base, folder, name, variant)
            networks[name] = sketch_network(base, folder, name)
            continue
        networks[name] = load_network(base, folder, name, variant)
        if name != "unet":
            cast_network(networks[name], name, frozen_dtype)
    with told(base, "feature_extractor"):
        feature_extractor = CLIPImageProcessor.from_pretrained(folder, subfolder="feature_extractor")
    return Parts(
        **networks,
        tokenizer=_tokenizer(base, folder, networks["text_encoder"].config.vocab_size),
        feature_extractor=feature_extractor,
        scheduler=_scheduler(base, folder, "scheduler"),
        image_noising_scheduler=_scheduler(base, folder, "image_noising_scheduler"),
        sampling=sampling,
    )


def write_sampling(folder: Path, sampling: Sampling) -> None:
    """Notes in model_index.json how the parts are meant to be sampled, where that differs from `Sampling()`."""
    path, usual = folder / INDEX, asdict(Sampling())
    index = {key: value for key, value in _read_json(path).items() if key not in usual}
    index |= {key: value for key, value in asdict(sampling).items() if value != usual[key]}
    path.write_text(json.dumps(index, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def _read_json(path: Path) -> dict[str, Any]:
    return dict(json.loads(path.read_text(encoding="utf-8")))


def _read_index(base: str, folder: Path) -> dict[str, Any]:
    try:
        return _read_json(folder / INDEX)
    except (OSError, TypeError, ValueError) as error:
        raise UserError(
            f"model {base} has no readable {INDEX}, so it is no diffusers checkpoint; "
            "name a folder in the layout of stable-diffusion-2-1-unclip, as `refiner-ds base` makes."
        ) from error


def _require_unclip(base: str, folder: Path, index: dict[str, Any]) -> None:
    def is_there(name: str) -> bool:
        entry = index.get(name)
        return isinstance(entry, list) and entry[:1] not in ([], [None]) and (folder / name).is_dir()

    missing = [name for name in NAMES if not is_there(name)]
    if missing:
        kind = index.get("_class_name")
        kind = kind[-1] if isinstance(kind, list) and kind else kind  # [module, class] where a pipeline brings its code
        raise UserError(
            f"model {base} is a {kind} without {', '.join(missing)}, so it is no unCLIP "
            "checkpoint; take one in the layout of stable-diffusion-2-1-unclip."
        )


def _read_sampling(base: str, index: dict[str, Any]) -> Sampling:
    """How the folder says that it is meant to be sampled, else GaussianRefiner's 20 steps and guidance 10."""
    made, usual = index.get("refiner_format", FORMAT), Sampling()
    if not isinstance(made, int) or made > FORMAT:
        raise UserError(
            f"model {base} is of refiner_format {made} and this refiner_ds reads {FORMAT}, so a newer one has made it; "
            "upgrade refiner_ds."
        )
    steps = index.get("num_inference_steps", usual.num_inference_steps)
    scale = index.get("guidance_scale", usual.guidance_scale)
    if not (isinstance(steps, int) and steps >= 1 and isinstance(scale, int | float) and scale >= 1):
        raise UserError(
            f"model {base}: its {INDEX} does not say how to sample (num_inference_steps {steps}, guidance_scale "
            f"{scale}, both at least 1); make or export it again."
        )
    return Sampling(steps, float(scale))


def _tokenizer(base: str, folder: Path, vocabulary: int) -> CLIPTokenizer:
    place = folder / "tokenizer"
    with told(base, "tokenizer"):
        # where these are missing, transformers makes a tokenizer that knows no words, without a word about it
        if not (place / "tokenizer.json").exists() and not all(
            (place / f).exists() for f in ("vocab.json", "merges.txt")
        ):
            raise FileNotFoundError("there is no vocab.json with merges.txt")
        tokenizer = CLIPTokenizer.from_pretrained(folder, subfolder="tokenizer")
    if len(tokenizer) > vocabulary:
        raise UserError(
            f"model {base}: its tokenizer knows {len(tokenizer)} tokens and its text_encoder {vocabulary}, so the "
            "parts do not fit together; take all parts from one checkpoint."
        )
    return tokenizer


def _scheduler(base: str, folder: Path, name: str) -> Any:
    with told(base, name):
        config = _read_json(folder / name / "scheduler_config.json")
        scheduler = getattr(diffusers_schedulers, config["_class_name"]).from_config(config)
    predicts = scheduler.config.prediction_type
    if name == "scheduler" and predicts not in ("epsilon", "v_prediction"):
        raise UserError(
            f"model {base} predicts {predicts}, and a refiner is trained to predict the noise (epsilon) or velocity "
            "(v_prediction); take another base."
        )
    return scheduler


def _config(base: str, folder: Path, name: str) -> dict[str, Any]:
    with told(base, name):
        return _read_json(folder / name / "config.json")


def _require_fit(base: str, folder: Path) -> None:
    """Compares the dimensions at which the parts meet, from their configs."""
    configs = {name: _config(base, folder, name) for name in NETWORKS}

    def dimension(part: str, key: str) -> int:
        with told(base, part):
            return configs[part][key]

    embedding = dimension("image_encoder", "projection_dim")
    meetings = (
        ("unet", "out_channels", "vae's latent_channels", dimension("vae", "latent_channels")),
        ("unet", "cross_attention_dim", "text_encoder's hidden_size", dimension("text_encoder", "hidden_size")),
        ("unet", "projection_class_embeddings_input_dim", "twice the image_encoder's projection_dim", 2 * embedding),
        ("image_normalizer", "embedding_dim", "image_encoder's projection_dim", embedding),
    )
    _require_square(base, folder, dimension("image_encoder", "image_size"))
    for part, key, other, expected in meetings:
        if dimension(part, key) != expected:
            raise UserError(
                f"model {base}: {part}'s {key} is {dimension(part, key)} and {other} is {expected}, so the parts do "
                "not fit together; take all parts from one checkpoint."
            )


def _require_square(base: str, folder: Path, side: int) -> None:
    """Refuses a feature extractor that does not cut the squares that the image encoder takes."""
    with told(base, "feature_extractor"):
        config = _read_json(folder / "feature_extractor" / "preprocessor_config.json")
    size, cut = config.get("size"), config.get("crop_size")
    size = {"shortest_edge": size} if isinstance(size, int) else size  # as older checkpoints write it
    cut = {"height": cut, "width": cut} if isinstance(cut, int) else cut
    if size != {"shortest_edge": side} or cut != {"height": side, "width": side}:
        raise UserError(
            f"model {base}: its feature_extractor resizes to {size} and cuts {cut}, and its image_encoder takes squares"
            f" of {side} pixels; take all parts from one checkpoint."
        )
