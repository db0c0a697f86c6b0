"""What lies in a run's folder under a checkpoint's name: the complete ones, and all that is none. Only looks."""

import re
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

from refiner_ds.checkpoint.layout import DAMAGED, DELETING, WRITING, Checkpoint, read_commit, what_lacks

State = Literal["complete", "incomplete", "being written", "being deleted", "set aside"]
STATES: dict[str, State] = {WRITING: "being written", DELETING: "being deleted", DAMAGED: "set aside"}
"""By what stands before the name of a folder."""
NAME = re.compile(rf"({'|'.join(map(re.escape, STATES))}|)checkpoint-(\d+)(-\d+)?")
"""A mark, the step, and the number of what was set aside under one name more than once."""


@dataclass(frozen=True)
class Entry:
    """One folder.

    Attributes:
        state: "complete" by the predicate that resume takes too.
        nbytes: of all that lies in it.
        written: seconds since 1970, as its commit says it, else those of what changed last in it.
        checkpoint: its content where all its files have their sizes, whatever the folder's name is.
        fault: what an incomplete one lacks, in words.
    """

    path: Path
    state: State
    step: int
    nbytes: int
    written: float
    checkpoint: Checkpoint | None
    fault: str = ""

    @property
    def commit(self) -> dict[str, Any]:
        """What its commit says; nothing where the content is not all there."""
        return self.checkpoint.commit if self.checkpoint else {}


def entries(folder: Path) -> list[Entry]:
    """Everything in a run's folder that is a checkpoint, is to become one or was one, by step.

    Raises:
        OSError: the folder cannot be read.
    """
    while True:
        found = [entry for path in folder.iterdir() if (entry := _entry_of(path))]
        if all(entry.path.exists() for entry in found):  # else a run has renamed or deleted one meanwhile
            return sorted(found, key=lambda entry: (entry.step, entry.path.name))


def _entry_of(path: Path) -> Entry | None:
    name = NAME.fullmatch(path.name)
    if name is None or not path.is_dir():
        return None
    mark, step, again = name.groups()
    if again and mark != DAMAGED:
        return None
    fault = "" if mark else what_lacks(path)
    state = STATES[mark] if mark else ("incomplete" if fault else "complete")
    checkpoint = read_commit(path)
    nbytes, changed = _size_and_time(path)
    return Entry(path, state, int(step), nbytes, _written(checkpoint) or changed, checkpoint, fault)


def _written(checkpoint: Checkpoint | None) -> float | None:
    try:
        return (
            datetime.strptime(checkpoint.commit["written"], "%Y-%m-%dT%H:%M:%S%z").timestamp() if checkpoint else None
        )
    except (KeyError, TypeError, ValueError):
        return None


def _size_and_time(folder: Path) -> tuple[int, float]:
    """Bytes of a folder's files, and when the last of them changed; of what vanishes meanwhile, nothing."""
    size, changed = 0, 0.0
    with suppress(FileNotFoundError):
        changed = folder.stat().st_mtime
        for path in folder.iterdir():
            found = path.stat()
            size, changed = size + found.st_size, max(changed, found.st_mtime)
    return size, changed
