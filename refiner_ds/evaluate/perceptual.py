"""Metrics by trained networks, whose weights are taken where they lie on this machine and never downloaded."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.metadata import distribution
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
import transformers
from huggingface_hub import try_to_load_from_cache
from safetensors import SafetensorError
from torch import Tensor, nn
from torch.nn import functional

LPIPS_FILE = "alexnet-owt-7be5be79.pth"
"""AlexNet as torchvision publishes it, in the folder `checkpoints` of torch's hub."""
DINO = "facebook/dinov2-small"
PERCEPTUAL = ("lpips", "dino")
"""Names of all of them."""
UNUSABLE = (OSError, RuntimeError, KeyError, ValueError, EOFError, UnpicklingError, SafetensorError)
"""What files raise that are not there, cut off, or something else."""


@dataclass(frozen=True)
class Perceptual:
    """One metric: its name, and its figure for a picture against gt, both (1, 3, H, W) uint8."""

    name: str
    compare: Callable[[Tensor, Tensor], float]


def find_perceptual(device: torch.device, tell: Callable[[str, str], None]) -> Iterator[Perceptual]:
    """The metrics whose weights are here; tells of each other one its name, and what it lacks and where from."""
    alexnet = Path(torch.hub.get_dir()) / "checkpoints" / LPIPS_FILE
    try:
        yield Perceptual("lpips", Lpips(alexnet, device))
    except UNUSABLE as error:
        tell(
            "lpips",
            f"no LPIPS: its AlexNet is not at {alexnet} ({_why(error)}); put it there from "
            f"download.pytorch.org/models/{LPIPS_FILE}",
        )
    try:
        yield Perceptual("dino", Dino(_folder_of(DINO), device))
    except OSError:
        tell("dino", f"no DINO: {DINO} is not in the cache of the Hugging Face hub; `hf download {DINO}` puts it there")
    except UNUSABLE as error:
        tell("dino", f"no DINO: {DINO} in the cache of the Hugging Face hub is damaged ({_why(error)}); fetch it anew")


def _folder_of(model: str) -> Path:
    """Where a model of the hub lies on this machine; transformers itself would ask the hub for files beside it.

    Raises:
        FileNotFoundError: it does not.
    """
    config = try_to_load_from_cache(model, "config.json")
    if not isinstance(config, str):
        raise FileNotFoundError(model)
    return Path(config).parent


def _why(error: Exception) -> str:
    """In a line."""
    said = isinstance(error, OSError) and error.strerror
    return said or f"{type(error).__name__}: {error}".splitlines()[0]


def shared_perceptual(
    device: torch.device, host: str, gathered: Callable[[Any], list[Any]], tell: Callable[[str, str], None]
) -> list[Perceptual]:
    """The metrics that all ranks have; tells name and lack of each that any of them has not. All ranks must call.

    Args:
        host: where this rank is; it is told of where there are several.
        gathered: what each rank gives, by rank.
    """
    lacks: list[tuple[str, str]] = []
    found = {metric.name: metric for metric in find_perceptual(device, lambda *lack: lacks.append(lack))}
    said = gathered((list(found), host, lacks))
    for (name, words), where in {lack: where for _, where, told in reversed(said) for lack in told}.items():
        tell(name, words if len(said) == 1 else f"{where}: {words}")
    return [metric for name, metric in found.items() if all(name in names for names, _, _ in said)]


class Lpips:
    """LPIPS, a distance: 0 for equal pictures (Zhang et al. 2018, version 0.1, AlexNet)."""

    def __init__(self, alexnet: Path, device: torch.device) -> None:
        """Raises OSError where the file cannot be read."""
        layers: list[nn.Module] = []
        for inner, outer, kernel, stride, padding in (
            (3, 64, 11, 4, 2),
            (64, 192, 5, 1, 2),
            (192, 384, 3, 1, 1),
            (384, 256, 3, 1, 1),
            (256, 256, 3, 1, 1),
        ):
            if len(layers) in (2, 5):
                layers.append(nn.MaxPool2d(3, 2))
            layers += [nn.Conv2d(inner, outer, kernel, stride, padding), nn.ReLU()]
        self._features = nn.Sequential(*layers)
        held = torch.load(alexnet, map_location="cpu", weights_only=True)
        kept = {name.removeprefix("features."): value for name, value in held.items() if name.startswith("features.")}
        self._features.load_state_dict(kept)
        self._features.requires_grad_(False).to(device)
        self._weights = [weight.to(device) for weight in _weights_of_layers()]
        self._device = device
        self._shift = torch.tensor([-0.030, -0.088, -0.188], device=device).view(1, 3, 1, 1)
        self._scale = torch.tensor([0.458, 0.448, 0.450], device=device).view(1, 3, 1, 1)

    def __call__(self, picture: Tensor, gt: Tensor) -> float:
        """The distance of two (1, 3, H, W) uint8 pictures."""
        pairs = zip(self._activations(picture), self._activations(gt), self._weights, strict=True)
        return float(sum(functional.conv2d((one - two).square(), weight).mean() for one, two, weight in pairs))

    def _activations(self, picture: Tensor) -> list[Tensor]:
        """After each of the five ReLUs, scaled to length 1 at every place."""
        found, hidden = [], (picture.to(self._device).float() / 127.5 - 1 - self._shift) / self._scale
        for layer in self._features:
            hidden = layer(hidden)
            if isinstance(layer, nn.ReLU):
                found.append(hidden / (hidden.square().sum(dim=1, keepdim=True).sqrt() + 1e-8))
        return found


def _weights_of_layers() -> list[Tensor]:
    """(1, channels, 1, 1) by layer: how much each channel counts, as torchmetrics carries it."""
    path = str(distribution("torchmetrics").locate_file("torchmetrics/functional/image/lpips_models/alex.pth"))
    held = torch.load(path, map_location="cpu", weights_only=True)
    return [held[f"lin{number}.model.1.weight"] for number in range(5)]


class Dino:
    """Cosine of what a DINOv2 says of two pictures as wholes, 1 for equal ones (Oquab et al. 2023)."""

    def __init__(self, folder: Path, device: torch.device) -> None:
        """Raises OSError where the folder holds no model."""
        model = transformers.AutoModel.from_pretrained(folder, local_files_only=True)
        self._model, self._device = model.requires_grad_(False).eval().to(device), device
        self._patch = model.config.patch_size
        self._mean = torch.tensor([0.485, 0.456, 0.406], device=device).view(1, 3, 1, 1)
        self._std = torch.tensor([0.229, 0.224, 0.225], device=device).view(1, 3, 1, 1)

    def __call__(self, picture: Tensor, gt: Tensor) -> float:
        """The cosine for two (1, 3, H, W) uint8 pictures."""
        one, two = self._said_of(picture), self._said_of(gt)
        return float(functional.cosine_similarity(one, two, dim=-1))

    def _said_of(self, picture: Tensor) -> Tensor:
        """(1, d), of the picture resized to the multiple of the patch at or above its size, 518 pixels at most."""
        sizes = [min(518 // self._patch, -(-size // self._patch)) * self._patch for size in picture.shape[-2:]]
        scaled = functional.interpolate(picture.to(self._device).float() / 255, sizes, mode="bicubic", antialias=True)
        return self._model(pixel_values=(scaled - self._mean) / self._std).pooler_output
