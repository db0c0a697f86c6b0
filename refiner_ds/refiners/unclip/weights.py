"""The weights of one network: in which files they lie, read in fp32, whole and finite or refused in one sentence."""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from diffusers.pipelines.stable_diffusion.stable_unclip_image_normalizer import StableUnCLIPImageNormalizer
from safetensors import safe_open
from torch import Tensor
from transformers import CLIPTextModel, CLIPVisionModelWithProjection

from refiner_ds.errors import UserError


@dataclass(frozen=True)
class _Library:
    """How a library calls its weight files, by ending, and how it is told to load them."""

    stems: Mapping[str, str]
    arguments: Mapping[str, Any]


_DIFFUSERS = _Library(
    {"safetensors": "diffusion_pytorch_model", "bin": "diffusion_pytorch_model"},
    {"torch_dtype": torch.float32},
)
_TRANSFORMERS = _Library(
    {"safetensors": "model", "bin": "pytorch_model"},
    {"dtype": torch.float32, "ignore_mismatched_sizes": True},  # it would only say that there is a report above
)
ENDINGS = ("safetensors", "bin")
"""File formats, the preferred one first."""

NETWORKS: dict[str, tuple[Any, _Library]] = {
    "vae": (AutoencoderKL, _DIFFUSERS),
    "text_encoder": (CLIPTextModel, _TRANSFORMERS),
    "unet": (UNet2DConditionModel, _DIFFUSERS),
    "image_encoder": (CLIPVisionModelWithProjection, _TRANSFORMERS),
    "image_normalizer": (StableUnCLIPImageNormalizer, _DIFFUSERS),
}
"""The parts that have weights: their class, and the library that it comes from."""


def weight_patterns(part: str, ending: str, variant: str | None) -> list[str]:
    """Patterns of the files that hold a part's weights, whole or in several pieces with their index."""
    _, library = NETWORKS[part]
    stem, tail = library.stems[ending], f".{variant}" if variant else ""
    return [
        f"{part}/{stem}{tail}.{ending}",
        f"{part}/{stem}{tail}-*-of-*.{ending}",
        f"{part}/{stem}.{ending}.index{tail}.json",
    ]


def has_weights(folder: Path, part: str, ending: str, variant: str | None) -> bool:
    """Whether any of a part's weights lie in the folder in that format and variant."""
    return any(any(folder.glob(pattern)) for pattern in weight_patterns(part, ending, variant))


def load_network(base: str, folder: Path, part: str, variant: str | None) -> Any:
    """Reads one network in fp32 onto the CPU, whatever the precision of its files.

    Raises:
        UserError: there are no such files, they cannot be read, lack weights, or hold NaN or infinity.
    """
    require_files(base, folder, part, variant)
    kind, library = NETWORKS[part]
    with told(base, part):
        network, info = kind.from_pretrained(
            folder, subfolder=part, variant=variant, output_loading_info=True, **library.arguments
        )
    missing = sorted(info["missing_keys"])
    if missing:
        raise UserError(
            f"model {base}: the files of its {part} lack {len(missing)} weights ({missing[0]}), which would stay "
            "random; download, make or export it again."
        )
    for name, found, expected in sorted(info["mismatched_keys"]):
        raise UserError(
            f"model {base}: {name} of its {part} is {shape_text(found)} in the file and {shape_text(expected)} by its "
            "config.json; download, make or export it again."
        )
    bad = first_not_finite(network.state_dict())
    if bad:
        raise UserError(
            f"model {base}: {bad} of its {part} holds NaN or infinity, so all that comes out would too; "
            "take a checkpoint from before it diverged, or download it again."
        )
    return network


def sketch_network(base: str, folder: Path, part: str) -> Any:
    """One network as its config.json says, its weights on the meta device: they are known by name and shape alone.

    Raises:
        UserError: the config cannot be read, or makes no network.
    """
    kind, library = NETWORKS[part]
    with told(base, part), torch.device("meta"):
        if library is _DIFFUSERS:
            return kind.from_config(kind.load_config(folder, subfolder=part))
        return kind(kind.config_class.from_pretrained(folder, subfolder=part))


def weights_of(base: str, folder: Path, part: str, variant: str | None, sketch: Any) -> Mapping[str, Tensor]:
    """The weights of a sketched network, in the precision of its files: mapped, so that only what is looked at is read.

    Files that a library would have to convert first, of other names or another format, are loaded.
    """
    _, library = NETWORKS[part]
    tail = f".{variant}" if variant else ""
    stem = f"{library.stems['safetensors']}{tail}"
    found: dict[str, Tensor] = {}
    for path in [*(folder / part).glob(f"{stem}.safetensors"), *(folder / part).glob(f"{stem}-*-of-*.safetensors")]:
        with told(base, part), safe_open(path, "pt") as file:
            names = file.keys()
            found |= {name: file.get_tensor(name) for name in names}
    wanted = sketch.state_dict()
    if all(name in found and found[name].shape == tensor.shape for name, tensor in wanted.items()):
        return {name: found[name] for name in wanted}
    return load_network(base, folder, part, variant).state_dict()


def fingerprint(weights: Mapping[str, Tensor]) -> str:
    """16 hex digits that tell networks apart: over names, shapes and 64 evenly spaced values of each tensor.

    Training moves every value, so these are enough, and take no time beside loading.
    """
    digest = hashlib.blake2b(digest_size=8)
    for name, tensor in sorted(weights.items()):
        flat = tensor.detach().flatten()
        digest.update(f"{name} {tuple(tensor.shape)}".encode())
        digest.update(flat[:: max(1, flat.numel() // 64)].float().cpu().numpy().tobytes())
    return digest.hexdigest()


def first_not_finite(weights: Mapping[str, Tensor]) -> str | None:
    """The name of the first tensor with a NaN or an infinity.

    One pass: sums tell, and only one that is not finite is looked into, as finite numbers can add up to more than fp32
    holds.
    """
    for name, tensor in weights.items():
        if tensor.is_floating_point() and not (tensor.sum(dtype=torch.float32).isfinite() or tensor.isfinite().all()):
            return name
    return None


def shape_text(shape: Sequence[int]) -> str:
    """A tensor's shape as a person writes it, such as 320x8x3x3."""
    return "x".join(map(str, shape)) or "a single number"


@contextmanager
def told(base: str, part: str) -> Iterator[None]:
    """Turns what a library raises while it loads a part into one sentence."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:  # files of others: what a library raises over them has no bounds
        raise UserError(
            f"model {base}: its {part} cannot be loaded ({reason_of(error)}); download, make or export it again."
        ) from error


def reason_of(error: BaseException) -> str:
    """The first sentence of what an error says, without a full stop."""
    if isinstance(error, KeyError):
        return f"there is no {error.args[0]!r}"
    lines = str(error).strip().splitlines()
    return lines[0].split(". ")[0].rstrip(". ") if lines else type(error).__name__


def require_files(base: str, folder: Path, part: str, variant: str | None) -> None:
    """Refuses a folder without the weights of a part.

    Raises:
        UserError: they are not there, or only as another variant.
    """
    if any(has_weights(folder, part, ending, variant) for ending in ENDINGS):
        return
    name = Path(weight_patterns(part, ENDINGS[0], variant)[0]).name
    others = _variants(folder, part)
    if variant:
        raise UserError(
            f"model {base}: variant {variant} of its {part} is not there (no {name}), and the parts of a model are of "
            "one variant; name another, or leave it out for the plain weights."
        )
    if others:
        raise UserError(
            f"model {base}: its {part} has no {name}, only the variant {others[0]}; say that it is to be taken, with "
            f"--variant {others[0]}."
        )
    raise UserError(
        f"model {base}: its {part} cannot be loaded (there is no {name}); download, make or export it again."
    )


def _variants(folder: Path, part: str) -> list[str]:
    """Variants of a part that lie in the folder, by the middle of their files' names."""
    _, library = NETWORKS[part]
    files = [path for ending in ENDINGS for path in (folder / part).glob(f"{library.stems[ending]}.*.{ending}")]
    return sorted({path.name.split(".")[1] for path in files})
