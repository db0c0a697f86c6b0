"""Checkpoints of a refiner as a run of several ranks writes them, without the run."""

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

import torch
from torch import Tensor

from refiner_ds.checkpoint.fragments import Fragment, Placed
from refiner_ds.checkpoint.layout import COMMIT, name_of
from refiner_ds.checkpoint.snapshot import AVERAGE, MASTER, Snapshot, file_of, write_snapshot
from refiner_ds.checkpoint.state import SavedState
from refiner_ds.refiners.unclip.options import Adaptation
from refiner_ds.refiners.unclip.refiner import UnclipRefiner


def trained_weights(refiner: UnclipRefiner) -> dict[str, Tensor]:
    """What is trained of a refiner's network, by name."""
    named = refiner.network.named_parameters()
    return {name: parameter.detach() for name, parameter in named if parameter.requires_grad}


def weights_in(checkpoint: Path, kind: str = MASTER) -> dict[str, Tensor]:
    """All weights of one kind in a checkpoint, by name."""
    saved = SavedState(checkpoint)
    return {name: saved.whole(name, kind) for name in saved.shapes}


def write_checkpoint(
    folder: Path,
    step: int,
    base: Path,
    weights: Mapping[str, Tensor],
    average: Mapping[str, Tensor] | None = None,
    adaptation: Adaptation | None = None,
    ranks: int = 3,
    **facts: object,
) -> Path:
    """A complete checkpoint of `ranks` files, among which the weights' values are dealt out without regard to their
    borders; `facts` go into its commit."""
    path = folder / name_of(step)
    path.mkdir(parents=True)
    kinds = {MASTER: weights, "exp_avg": weights, **({AVERAGE: average} if average else {})}
    flat = {kind: torch.cat([tensor.flatten() for tensor in named.values()]) for kind, named in kinds.items()}
    files = {}
    for rank in range(ranks):
        total = flat[MASTER].numel()
        first, end = rank * total // ranks, (rank + 1) * total // ranks
        shards = {kind: [values[first:end].clone()] for kind, values in flat.items()}
        shapes = {name: tuple(tensor.shape) for name, tensor in weights.items()}
        snapshot = Snapshot(shards, [_placed(weights, first, end)], shapes, {}, {"optimizer": {}, "scaler": {}})
        files[file_of(rank)] = write_snapshot(path / file_of(rank), snapshot)
    commit = {
        "step": step,
        "number": step,
        "images_seen": 8 * step,
        "pretrained_model_name_or_path": str(base),
        "base_fingerprint": UnclipRefiner(str(base)).base_fingerprint,
        **asdict(adaptation or Adaptation()),
        "files": files,
        "elsewhere": {},
        **facts,
    }
    (path / COMMIT).write_text(json.dumps(commit))
    return path


def _placed(weights: Mapping[str, Tensor], first: int, end: int) -> list[Placed]:
    """What of the weights lies between two places of them all in a row."""
    placed, begins = [], 0
    for name, tensor in weights.items():
        start, stop = max(first, begins), min(end, begins + tensor.numel())
        if start < stop:
            placed.append(Placed(Fragment(name, start - begins, stop - start), start - first))
        begins += tensor.numel()
    return placed
