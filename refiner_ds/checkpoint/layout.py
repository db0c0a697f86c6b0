"""How checkpoints lie in a run's folder, and the one predicate that says which of them are complete."""

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

COMMIT = "commit.json"
"""Written last, after everything else is on disk: lists the files with their sizes, and says what the checkpoint is."""

_NAME = re.compile(r"checkpoint-(\d+)")


@dataclass(frozen=True)
class Checkpoint:
    """A complete checkpoint: its folder, the number of completed optimizer steps, and the content of its commit."""

    path: Path
    step: int
    commit: dict[str, Any]


def name_of(step: int) -> str:
    """Folder name of the checkpoint after `step` optimizer steps."""
    return f"checkpoint-{step}"


def read(path: Path) -> Checkpoint | None:
    """The checkpoint in a folder if it is complete: committed, and every file has the size it was committed with."""
    match = _NAME.fullmatch(path.name)
    try:
        commit = json.loads((path / COMMIT).read_text(encoding="utf-8"))
        sizes = {name: (path / name).stat().st_size for name in commit["files"]}
    except (OSError, ValueError, KeyError):
        return None
    if match is None or sizes != commit["files"]:
        return None
    return Checkpoint(path, int(match[1]), commit)


def complete_checkpoints(folder: Path) -> list[Checkpoint]:
    """All complete checkpoints of a run's folder, oldest first."""
    found = [read(path) for path in folder.glob("checkpoint-*")]
    return sorted((checkpoint for checkpoint in found if checkpoint), key=lambda c: c.step)
