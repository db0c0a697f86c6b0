"""What GaussianRefiner's public training script saves: a UNet's weights, beside a config that is not to be trusted."""

import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from refiner_ds.errors import UserError
from refiner_ds.refiners.unclip.weights import first_not_finite, reason_of, shape_text

FILES = ("diffusion_pytorch_model.safetensors", "diffusion_pytorch_model.bin")
_WRAPPED = "module."
"""What DistributedDataParallel puts before every name."""


def read_legacy(path: Path) -> dict[str, Tensor]:
    """The UNet's weights by name in fp32, of a folder with unet/, of that unet folder, or of the file itself.

    Raises:
        UserError: there is no such file, it cannot be read safely, is no dict of tensors, or holds NaN or infinity.
    """
    file = _find(path)
    weights = _require_tensors(file, _read(file))
    bad = first_not_finite(weights)
    if bad:
        raise UserError(
            f"{file}: {bad} holds NaN or infinity, so the refiner would paint nothing else; import what was saved "
            "before its training diverged."
        )
    if all(name.startswith(_WRAPPED) for name in weights):
        weights = {name.removeprefix(_WRAPPED): tensor for name, tensor in weights.items()}
    return {name: tensor.float() for name, tensor in weights.items()}


def require_same_network(path: Path, weights: Mapping[str, Tensor], base: str, network: nn.Module) -> None:
    """Compares names and shapes with those of the base's UNet, once that has been made a refiner's.

    Raises:
        UserError: the weights are of a UNet with the pretrained number of input channels, or of another network.
    """
    shapes = {name: tensor.shape for name, tensor in network.state_dict().items()}
    missing, extra = sorted(shapes.keys() - weights.keys()), sorted(weights.keys() - shapes.keys())
    if missing or extra:
        raise UserError(
            f"{path} lacks {len(missing)} weights of the refiner that {base} makes and has {len(extra)} that it does "
            f"not know ({', '.join([*missing[:2], *extra[:2]])}), so it is of another network; name the UNet that was "
            "saved, and the base that it was trained from."
        )
    entry = "conv_in.weight"
    if weights[entry].shape[1:2] == (shapes[entry][1] // 2,):
        raise UserError(
            f"{path} is a UNet of {shapes[entry][1] // 2} input channels, which has never seen a render, so it is no "
            f"refiner (those have {shapes[entry][1]}); name the one that training saved, or train from it as a base."
        )
    other = [name for name, shape in shapes.items() if weights[name].shape != shape]
    if other:
        raise UserError(
            f"{path}: {len(other)} weights are shaped otherwise than those of {base}, such as {other[0]} "
            f"({shape_text(weights[other[0]].shape)}, not {shape_text(shapes[other[0]])}), so it was trained from "
            "another base; name that one with --pretrained_model_name_or_path."
        )


def _find(path: Path) -> Path:
    """The file with the weights; safetensors where both lie there."""
    places = [path] if path.is_file() else [path / folder / name for folder in ("unet", ".") for name in FILES]
    file = next((place for place in places if place.is_file()), None)
    if file is None:
        raise UserError(
            f"{path} holds no {' or '.join(FILES)}, in unet/ or itself, so there is nothing to import; name what "
            "GaussianRefiner's training saved, or the file itself."
        )
    return file


def _read(file: Path) -> Any:
    try:
        if file.suffix == ".safetensors":
            return load_file(file)
        return torch.load(file, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise UserError(
            f"{file} holds other things than tensors, which could run code when they are loaded, or is no file of "
            "torch's at all; save the UNet's state_dict() alone, or copy the file again."
        ) from error
    except Exception as error:  # torch.load has no bounds to what it raises over a spoiled file
        raise UserError(f"{file} cannot be read ({reason_of(error)}), as if it were cut off; copy it again.") from error


def _require_tensors(file: Path, content: Any) -> dict[str, Tensor]:
    is_weights = isinstance(content, dict) and content and all(isinstance(name, str) for name in content)
    if not is_weights or not all(isinstance(tensor, Tensor) for tensor in content.values()):
        raise UserError(
            f"{file} is no dict of tensors by name, so it is no network's weights; save the UNet's state_dict() alone."
        )
    return content
