"""How checkpoints lie in a run's folder, and the one predicate that says which of them are complete."""

import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from refiner_ds.checkpoint.checksum import crc_of

COMMIT = "commit.json"
"""Written last, after all else is on disk: says what the checkpoint is, and lists its files with size and CRC-32C."""
WRITING, DELETING, DAMAGED = ".writing-", ".deleting-", "damaged-"
"""Before the name of a folder that is being written or deleted, or whose content is no longer what was written."""


@dataclass(frozen=True)
class Checkpoint:
    """A complete checkpoint: its folder, completed optimizer steps, its number in the order of writing, its commit."""

    path: Path
    step: int
    number: int
    commit: dict[str, Any]

    @property
    def nbytes(self) -> int:
        """Size of its files here."""
        return sum(size for size, _ in self.commit["files"].values())


def name_of(step: int) -> str:
    """Folder name of the checkpoint after `step` optimizer steps."""
    return f"checkpoint-{step}"


def read(path: Path) -> Checkpoint | None:
    """The checkpoint in a folder if it is complete: every file has the size, and the folder the name, of its commit."""
    checkpoint = read_commit(path)
    return checkpoint if checkpoint and path.name == name_of(checkpoint.step) else None


def read_commit(path: Path) -> Checkpoint | None:
    """The same for a folder of whatever name: one that was complete when something ended its renaming."""
    try:
        commit = _commit_in(path)
        step, number = int(commit["step"]), int(commit["number"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return None if [*_missing(path, commit)] else Checkpoint(path, step, number, commit)


def what_lacks(path: Path) -> str:
    """Why a folder with a checkpoint's name is no complete checkpoint, in words; empty where it is one."""
    if read(path):
        return ""
    try:
        return "; ".join(_missing(path, _commit_in(path))) or f"its {COMMIT} is of {path.name} no more"
    except OSError:
        return f"it has no {COMMIT}"
    except (ValueError, KeyError, TypeError):
        return f"its {COMMIT} is damaged"


def _commit_in(path: Path) -> dict[str, Any]:
    commit = json.loads((path / COMMIT).read_text(encoding="utf-8"))
    for size, crc in dict(commit["files"]).values():
        int(size), int(crc)
    return dict(commit)


def _missing(path: Path, commit: dict[str, Any]) -> Iterator[str]:
    for name, (size, _) in commit["files"].items():
        file = path / name
        if not file.is_file():
            yield f"{name} is missing"
        elif file.stat().st_size != size:
            yield f"{name} has {file.stat().st_size} bytes of {size}"


def complete_checkpoints(folder: Path) -> list[Checkpoint]:
    """All complete checkpoints of a run's folder, in the order in which they were written."""
    found = [read(path) for path in folder.glob("checkpoint-*")]
    return sorted((checkpoint for checkpoint in found if checkpoint), key=lambda c: c.number)


def incomplete_checkpoints(folder: Path) -> dict[Path, str]:
    """Folders that have a checkpoint's name and are none, each with what it lacks."""
    named = [path for path in sorted(folder.glob("checkpoint-*")) if re.fullmatch(r"checkpoint-\d+", path.name)]
    found = {path: what_lacks(path) for path in named if path.is_dir()}
    return {path: lacking for path, lacking in found.items() if lacking}


def damage(checkpoint: Checkpoint, files: Iterable[str]) -> Iterator[str]:
    """What is wrong with some of the files that a checkpoint has here, a clause each: they are read and compared."""
    for name in files:
        try:
            is_whole = crc_of(checkpoint.path / name) == checkpoint.commit["files"][name][1]
        except OSError as error:
            yield f"{name} cannot be read ({error.strerror})"
            continue
        if not is_whole:
            yield f"{name} is not what was written (its CRC-32C differs)"
