"""How checkpoints lie in a run's folder, and the one predicate that says which of them are complete."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

COMMIT = "commit.json"
"""Written last, after everything else is on disk: lists the files with their sizes, and says what the checkpoint is."""


@dataclass(frozen=True)
class Checkpoint:
    """A complete checkpoint: its folder, completed optimizer steps, its number in the order of writing, its commit."""

    path: Path
    step: int
    number: int
    commit: dict[str, Any]


def name_of(step: int) -> str:
    """Folder name of the checkpoint after `step` optimizer steps."""
    return f"checkpoint-{step}"


def average_of(rank: int) -> str:
    """File in a checkpoint with a rank's shard of the averaged weights: group.0, group.1, ... as the optimizer's."""
    return f"average_rank_{rank}.safetensors"


def read(path: Path) -> Checkpoint | None:
    """The checkpoint in a folder if it is complete: every file has the size, and the folder the name, of its commit."""
    try:
        commit = json.loads((path / COMMIT).read_text(encoding="utf-8"))
        step, number = int(commit["step"]), int(commit["number"])
        sizes = {name: (path / name).stat().st_size for name in commit["files"]}
    except (OSError, ValueError, KeyError, TypeError):
        return None
    if path.name != name_of(step) or sizes != commit["files"]:
        return None
    return Checkpoint(path, step, number, commit)


def complete_checkpoints(folder: Path) -> list[Checkpoint]:
    """All complete checkpoints of a run's folder, in the order in which they were written."""
    found = [read(path) for path in folder.glob("checkpoint-*")]
    return sorted((checkpoint for checkpoint in found if checkpoint), key=lambda c: c.number)
