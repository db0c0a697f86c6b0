"""The folder of an update that was not finite: which samples are suspected, and their pictures, to be replayed."""

import json
import math
import platform
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

from refiner_ds.batch import Batch, batch_of
from refiner_ds.checkpoint.place import Gather, Place
from refiner_ds.checkpoint.snapshot import file_of
from refiner_ds.checkpoint.tensor_file import write_tensors
from refiner_ds.errors import UserError
from refiner_ds.folders import sync

FOLDER, EVENT = "nonfinite", "event.json"


@dataclass(frozen=True)
class Suspect:
    """A sample of such an update: the batch of it alone, and what is told of it.

    Attributes:
        told: key, position, rank, `losses` of the sample alone by name, and `drawn`, what chance decided for it.
    """

    batch: Batch
    told: dict[str, Any]

    @property
    def is_finite(self) -> bool:
        """Whether all its losses are."""
        return all(math.isfinite(float(loss)) for loss in self.told["losses"].values())


def title_of(told: Mapping[str, Any]) -> str:
    """A suspect in words: its key, and what chance decided for it."""
    drawn = {name: " and ".join(value) if isinstance(value, list) else value for name, value in told["drawn"].items()}
    chance = ", ".join(f"{name} {value}" for name, value in drawn.items() if value != "")
    return f"{told['key']} ({chance})"


def folder_of(run: Path, step: int) -> Path:
    """Where the event of update `step` = 1, 2, ... lies in the folder of a run."""
    return run / FOLDER / f"step-{step:08d}"


def in_words(value: float) -> float | str:
    """The value; inf and nan as words, which JSON lacks."""
    return value if math.isfinite(value) else str(value)


def write_event(
    folder: Path, facts: Mapping[str, Any], mine: Sequence[Suspect], place: Place, gathered: Gather
) -> tuple[list[dict[str, Any]], str]:
    """Writes the folder whole, or not at all, in place of one that is there. All ranks must call.

    Args:
        facts: what the event says beside its suspects.
        mine: the suspects of this rank.

    Returns:
        what is told of the suspects of all ranks, and what went wrong in words, empty where nothing did.
    """
    scratch = folder.with_name(f".{folder.name}")
    everyone = [told for of_rank in gathered([suspect.told for suspect in mine]) for told in of_rank]
    parts: list[tuple[bool, Callable[[], None]]] = [
        (place.leads, lambda: _begin(scratch)),
        (bool(mine), lambda: _write_pictures(scratch / file_of(place.rank), mine)),
        (place.leads, lambda: _finish(scratch, folder, {**facts, "suspects": everyone})),
    ]
    for is_mine, part in parts:
        faults = gathered(_fault_of(part) if is_mine else "")
        if any(faults):
            return everyone, next(filter(None, faults))
    return everyone, ""


def read_event(folder: Path) -> tuple[dict[str, Any], list[Suspect]]:
    """The facts of an event, and its suspects with their pictures.

    Raises:
        UserError: it is no such folder, or a rank's pictures are not in it.
    """
    try:
        event = dict(json.loads((folder / EVENT).read_text(encoding="utf-8")))
    except (OSError, ValueError) as error:
        raise UserError(
            f"{folder} has no {EVENT} that can be read, so there is nothing to replay; name a folder "
            f"OUTPUT_DIR/{FOLDER}/step-NNNNNNNN of a run."
        ) from error
    told: list[dict[str, Any]] = event["suspects"]
    pictures = {rank: _read_pictures(folder / file_of(rank)) for rank in {each["rank"] for each in told}}
    return event, [Suspect(_batch_of(pictures[each["rank"]], each), each) for each in told]


def _begin(scratch: Path) -> None:
    shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir(parents=True)


def _write_pictures(path: Path, suspects: Sequence[Suspect]) -> None:
    """What the batches of B suspects hold, by name, and `positions` (B,) int64, by which they are found."""
    batches = [each.batch.tensors for each in suspects]
    tensors = {name: torch.cat([batch[name] for batch in batches]).contiguous() for name in batches[0]}
    write_tensors(path, {**tensors, "positions": torch.tensor([each.told["position"] for each in suspects])}, {})


def _finish(scratch: Path, folder: Path, event: dict[str, Any]) -> None:
    (scratch / EVENT).write_text(json.dumps(event, indent=1) + "\n", encoding="utf-8")
    sync(scratch / EVENT)
    shutil.rmtree(folder, ignore_errors=True)
    scratch.rename(folder)


def _fault_of(part: Callable[[], None]) -> str:
    try:
        part()
    except OSError as error:
        return f"{error.strerror or error} on {platform.node()}"
    return ""


def _read_pictures(path: Path) -> dict[str, torch.Tensor]:
    try:
        with safe_open(path, framework="pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  it is no mapping
    except (OSError, SafetensorError) as error:
        raise UserError(
            f"{path} cannot be read ({error}), so pictures of the event are missing; where nodes wrote into folders of "
            "their own, bring all rank-*.safetensors of the event into one."
        ) from error


def _batch_of(pictures: dict[str, torch.Tensor], told: dict[str, Any]) -> Batch:
    number = pictures["positions"].tolist().index(told["position"])
    own = {name: tensor[number : number + 1] for name, tensor in pictures.items() if name != "positions"}
    return batch_of(own, (told["position"],), (told["key"],))
