"""The exact fp32 weights of a checkpoint, joined from the optimizer shards of all ranks; needs no process group."""

import re
from pathlib import Path

import torch
from torch import Tensor

_SHARD = re.compile(r"zero_pp_rank_(\d+)_mp_rank_00_optim_states\.pt$")


def read_master_weights(checkpoint: Path) -> dict[str, Tensor]:
    """The network's fp32 weights by name, of a complete checkpoint of ZeRO stage 1 or 2.

    Every rank's shard holds one slice of each group of flattened parameters, and says which part of which parameter
    lies where in it. The files are pickles: read only checkpoints of your own.
    """
    model = torch.load(checkpoint / "mp_rank_00_model_states.pt", map_location="cpu", mmap=True, weights_only=False)
    pieces: dict[str, list[Tensor]] = {name: [] for name in model["module"]}
    for path in sorted(checkpoint.glob("*_optim_states.pt"), key=_rank_of):
        state = torch.load(path, map_location="cpu", mmap=True, weights_only=False)["optimizer_state_dict"]
        groups = zip(state["single_partition_of_fp32_groups"], state["param_slice_mappings"], strict=True)
        for partition, mapping in groups:
            for name, place in mapping.items():
                pieces[name].append(partition[place.start : place.start + place.numel])
    return {name: torch.cat(parts).view_as(model["module"][name]) for name, parts in pieces.items()}


def _rank_of(path: Path) -> int:
    match = _SHARD.search(path.name)
    assert match, path
    return int(match[1])
