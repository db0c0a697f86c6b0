"""Low-rank updates by themselves: a small folder that is a refiner again together with its base."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from refiner_ds.errors import UserError
from refiner_ds.refiners.unclip.adapt import ADAPTER, IN_FULL, LOW_RANK
from refiner_ds.refiners.unclip.hub import INDEX, folder_of
from refiner_ds.refiners.unclip.origin import Origin
from refiner_ds.refiners.unclip.refiner import UnclipRefiner

RECORD = "export.json"
"""What an export says of itself; in an adapter's folder it names the base."""


def open_refiner(model: str) -> UnclipRefiner:
    """The refiner of a pipeline's folder or hub id, or of an adapter's folder, merged into its base.

    Raises:
        UserError: it is neither, or the base of the adapter is not there or not the one that was trained.
    """
    folder = Path(model)
    if not is_adapter(folder):
        return UnclipRefiner(model)
    return open_adapter(folder, origin_of(folder), f"{folder / RECORD} names the base: say there where it is now.")


def open_adapter(folder: Path, origin: Origin, remedy: str, dtype: torch.dtype = torch.float32) -> UnclipRefiner:
    """An adapter merged into its base, whose frozen parts get a precision of choice.

    Raises:
        UserError: the base is not there, with `remedy`, or the adapter does not fit it.
    """
    refiner = origin.load(f"adapter {folder}", remedy, dtype)
    trained = {name for name, weight in refiner.network.named_parameters() if weight.requires_grad}
    weights = dict(_weights(folder))
    if weights.keys() != trained:
        name = min(weights.keys() ^ trained)
        raise UserError(
            f"adapter {folder} and its {RECORD} do not fit together ({name} is in one of them alone), so it would be "
            "merged in part; export it again."
        )
    refiner.load_weights(weights.items())
    refiner.merge()
    return refiner


def is_adapter(folder: Path) -> bool:
    """Whether an adapter was exported into the folder."""
    return (folder / LOW_RANK).is_file() and not (folder / INDEX).exists()


def origin_of(folder: Path) -> Origin:
    """The base of an adapter.

    Raises:
        UserError: its record does not tell.
    """
    try:
        record: dict[str, Any] = json.loads((folder / RECORD).read_text(encoding="utf-8"))
        return Origin.read(record)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"adapter {folder} has no {RECORD} that tells its base, so there is nothing to add it to; export it again."
        ) from error


def folders_of(model: str) -> list[Path]:
    """The folders that a model lies in: its own, and of an adapter its base's too.

    Raises:
        UserError: one is not there.
    """
    if not is_adapter(Path(model)):
        return [folder_of(model, None, None)]
    origin = origin_of(Path(model))
    return [Path(model), folder_of(origin.base, origin.revision, origin.variant)]


def _weights(folder: Path) -> Iterator[tuple[str, Tensor]]:
    """What was trained, by its names in the network."""
    for file_name in (LOW_RANK, IN_FULL):
        try:
            with safe_open(folder / file_name, framework="pt") as file:
                for name in file.keys():  # noqa: SIM118 - it is no dict
                    yield _name_in_network(name), file.get_tensor(name)
        except (OSError, SafetensorError) as error:
            raise UserError(f"adapter {folder}: its {file_name} cannot be read ({error}); export it again.") from error


def _name_in_network(name: str) -> str:
    """peft leaves the adapter's name out of its files."""
    for low_rank in (".lora_A.", ".lora_B."):
        name = name.replace(low_rank, f"{low_rank}{ADAPTER}.")
    return name
