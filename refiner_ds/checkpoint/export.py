"""The exact fp32 weights of a checkpoint, joined from the optimizer shards of all ranks; needs no process group."""

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from refiner_ds.checkpoint.layout import average_of

_SHARD = re.compile(r"zero_pp_rank_(\d+)_mp_rank_00_optim_states\.pt$")


def has_average(checkpoint: Path) -> bool:
    """Whether a complete checkpoint holds a moving average of its weights."""
    return (checkpoint / average_of(0)).exists()


def read_master_weights(checkpoint: Path) -> dict[str, Tensor]:
    """The trained fp32 weights by name, of a complete checkpoint of ZeRO stage 1 or 2."""
    return _joined(checkpoint, lambda rank, state: state["single_partition_of_fp32_groups"])


def read_averaged_weights(checkpoint: Path) -> dict[str, Tensor]:
    """Their moving average, of a checkpoint that has one."""

    def shards(rank: int, state: dict[str, Any]) -> list[Tensor]:
        average = load_file(checkpoint / average_of(rank))
        return [average[f"group.{number}"] for number in range(len(state["param_slice_mappings"]))]

    return _joined(checkpoint, shards)


def _joined(checkpoint: Path, shards_of: Callable[[int, dict[str, Any]], Sequence[Tensor]]) -> dict[str, Tensor]:
    """Joins one flat shard for each rank and group of parameters to tensors by name.

    Every rank's shard holds one slice of each group of flattened parameters, and the optimizer's state says which part
    of which parameter lies where in it. The files are pickles: read only checkpoints of your own.
    """
    model = torch.load(checkpoint / "mp_rank_00_model_states.pt", map_location="cpu", mmap=True, weights_only=False)
    pieces: dict[str, list[Tensor]] = {}
    for path in sorted(checkpoint.glob("*_optim_states.pt"), key=_rank_of):
        state = torch.load(path, map_location="cpu", mmap=True, weights_only=False)["optimizer_state_dict"]
        for shard, mapping in zip(shards_of(_rank_of(path), state), state["param_slice_mappings"], strict=True):
            for name, place in mapping.items():
                pieces.setdefault(name, []).append(shard[place.start : place.start + place.numel])
    return {name: torch.cat(parts).view_as(model["module"][name]) for name, parts in pieces.items()}


def _rank_of(path: Path) -> int:
    match = _SHARD.search(path.name)
    assert match, path
    return int(match[1])
