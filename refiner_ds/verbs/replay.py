"""`refiner-ds replay`: an update with NaN or infinity once more, one sample after the other."""

import json
from dataclasses import fields
from pathlib import Path
from typing import Any

import torch

from refiner_ds.checkpoint.layout import Checkpoint, complete_checkpoints, read
from refiner_ds.checkpoint.state import SavedState
from refiner_ds.config.verbs.models import Replay
from refiner_ds.errors import UserError
from refiner_ds.folders import file_made_whole, require_folder
from refiner_ds.refiners.unclip.options import Recipe
from refiner_ds.refiners.unclip.refiner import UnclipRefiner
from refiner_ds.refiners.unclip.weights import first_not_finite
from refiner_ds.train.diagnosis import Diagnosis, diagnose
from refiner_ds.train.event import Suspect, in_words, read_event, title_of
from refiner_ds.train.precision import DTYPES, allow_tf32
from refiner_ds.verbs.device import device_of
from refiner_ds.verbs.export import base_of
from refiner_ds.world import World


def run(options: Replay) -> None:
    """Computes loss and gradient of every suspect alone, as the run would, and prints what is not finite."""
    event, suspects = read_event(options.event)
    if options.json:
        require_folder(options.json.parent)
    checkpoint = _checkpoint(options, event["completed_steps"])
    device, dtype = device_of(options.device, World()), DTYPES[options.precision or event["precision"]]
    refiner = _as_trained(checkpoint, options, device, dtype)
    found = [diagnose(refiner, suspect.batch.to(device), dtype, event["seed"]) for suspect in suspects]
    print(*_lines(suspects, found), sep="\n")
    if options.json:
        _write(options.json, {**event, "weights_of_step": checkpoint.step}, suspects, found)


def _checkpoint(options: Replay, completed: int) -> Checkpoint:
    """The weights to compute with; says so where they are not those of the update."""
    if options.checkpoint:
        checkpoint = read(options.checkpoint)
        if checkpoint is None:
            raise UserError(
                f"--checkpoint {options.checkpoint} is no complete checkpoint, so it has no weights to compute with; "
                "name a checkpoint-STEP folder."
            )
    else:
        run = options.event.resolve().parents[1]
        before = [each for each in complete_checkpoints(run) if each.step <= completed]
        if not before:
            raise UserError(
                f"{run} has no complete checkpoint of step {completed} or before, so the weights of the update are not "
                "known; name one with --checkpoint."
            )
        checkpoint = max(before, key=lambda each: each.step)
    other = f", and not of step {completed} as in the update, so what is found may differ"
    print(f"weights of {checkpoint.path}{other if checkpoint.step != completed else ''}")
    return checkpoint


def _as_trained(checkpoint: Checkpoint, options: Replay, device: torch.device, dtype: torch.dtype) -> UnclipRefiner:
    """The refiner of a checkpoint, ready for the forward and backward pass of training by the run's own recipe."""
    (refiner, _), saved = base_of(checkpoint, options), SavedState(checkpoint.path)
    weights = {name: saved.whole(name) for name in saved.shapes}
    if broken := first_not_finite(weights):
        print(f"the weights themselves are not finite: {broken}")
    refiner.network.load_state_dict(weights, strict=False)
    refiner.network.to(device, dtype).train()
    refiner.place(device, dtype)
    given = checkpoint.commit["settings"]["train"]
    allow_tf32(given["allow_tf32"])
    flags = {field.name: field.name for field in fields(Recipe)} | {"condition_dropout": "condition_dropout_prob"}
    refiner.prepare_training(Recipe(**{name: given[flag] for name, flag in flags.items()}))
    return refiner


def _lines(suspects: list[Suspect], found: list[Diagnosis]) -> list[str]:
    """A table with a line for each sample, and who is guilty."""
    titles = [title_of(suspect.told) for suspect in suspects]
    width = max(map(len, titles))
    heads = [*found[0].losses, "gradient norm"]
    lines = [f"{'sample':<{width}}  {'  '.join(f'{head:>13}' for head in heads)}  first not finite"]
    for title, one in zip(titles, found, strict=True):
        values = "  ".join(f"{value:>13.6g}" for value in (*one.losses.values(), one.gradient_norm))
        lines.append(f"{title:<{width}}  {values}  {one.first or ('-' if one.is_finite else 'on the way back')}")
    guilty = [title for title, one in zip(titles, found, strict=True) if not one.is_finite]
    return [*lines, f"guilty: {', '.join(guilty)}" if guilty else "guilty: none of them, with these weights"]


def _write(path: Path, event: dict[str, Any], suspects: list[Suspect], found: list[Diagnosis]) -> None:
    samples = [
        {
            **suspect.told,
            "losses": {name: in_words(loss) for name, loss in one.losses.items()},
            "gradient_norm": in_words(one.gradient_norm),
            "first_not_finite": one.first,
            "is_guilty": not one.is_finite,
        }
        for suspect, one in zip(suspects, found, strict=True)
    ]
    with file_made_whole(path) as scratch:
        scratch.write_text(json.dumps({**event, "suspects": samples}, indent=1) + "\n", encoding="utf-8")
