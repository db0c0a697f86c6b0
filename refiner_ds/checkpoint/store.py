"""Saving: each rank writes its part in the background; once all parts are on disk, a commit, one rename, and only then
deletions."""

import json
import platform
import shutil
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from refiner_ds.checkpoint.layout import (
    COMMIT,
    DAMAGED,
    DELETING,
    WRITING,
    complete_checkpoints,
    name_of,
    read,
    read_commit,
)
from refiner_ds.checkpoint.place import Gather, Place
from refiner_ds.checkpoint.retention import Keep, surplus
from refiner_ds.checkpoint.snapshot import Snapshot, file_of, write_snapshot
from refiner_ds.folders import sync

FORMAT = 2
"""Of the commit and the files beside it."""


@dataclass(frozen=True)
class _Part:
    """What one rank tells of its file: where it lies, or why it does not."""

    place: int
    host: str
    name: str
    size: int = 0
    crc: int = 0
    fault: str = ""


class Saver:
    """Saves a run's checkpoints, at most one at a time. All ranks have one, and call its methods alike.

    Args:
        place: who writes into the same folder.
        gathered: see `Gather`; must not wait for what computes.
        figures: by step, what tells the best ones; looked up when a checkpoint is complete.
        tell: told in words what could not be done; rank 0's are shown.
    """

    def __init__(
        self,
        folder: Path,
        place: Place,
        gathered: Gather,
        keep: Keep,
        figures: Mapping[int, float],
        tell: Callable[[str], None],
    ) -> None:
        self._folder, self._place, self._gathered, self._tell = folder, place, gathered, tell
        self._keep, self._figures = keep, figures
        self._writing: threading.Thread | None = None
        self._deleting: threading.Thread | None = None
        self._facts: dict[str, Any] = {}
        self.step = -1
        """Completed steps of the newest save that was begun; less than zero before the first."""
        self._unwritten = _Part(place.ranks[0], platform.node(), file_of(place.rank), fault="writing it broke off")
        self._part = self._unwritten
        self.in_use: set[int] = set()
        """Steps whose checkpoints are being read, so that they stay."""
        self.was_committed = True
        """Whether the newest save that is no longer on its way became a checkpoint."""

    @property
    def is_pending(self) -> bool:
        """Whether a save was begun and is not committed; the same on all ranks."""
        return self._writing is not None

    @property
    def is_writing(self) -> bool:
        """Whether this rank's part is still on its way to the disk."""
        return self._writing is not None and self._writing.is_alive()

    def begin(self, step: int, take: Callable[[], Snapshot], facts: Mapping[str, Any]) -> None:
        """Takes a snapshot after `step` completed steps and lets it be written. All ranks must call.

        A save that is still on its way is finished before, as its memory is used again.

        Args:
            facts: what the commit says beside step and files: identity, number of ranks, settings, ...
        """
        self.finish()
        self.step, self._facts = step, dict(facts)
        snapshot = take()
        self._writing = threading.Thread(target=self._write, args=(snapshot,), name="checkpoint")
        self._writing.start()

    def finish(self) -> bool:
        """Waits for what is being written, and commits it; tells whether that went well. All ranks must call."""
        if self._writing is None:
            return self.was_committed
        self._writing.join()
        self._writing = None
        parts: list[_Part] = self._gathered(self._part)
        fault = next((f"{part.name} on {part.host}: {part.fault}" for part in parts if part.fault), "")
        if self._place.leads and not fault:
            fault = self._commit(parts)
        faults = self._gathered(fault)
        fault = next((each for each in faults if each), "")
        if fault:
            self._tell(f"checkpoint {self.step} could not be written ({fault}), and training goes on without it")
        if self._place.leads:
            if fault:
                shutil.rmtree(self._scratch, ignore_errors=True)
            self.tidy()
        self.was_committed = not fault
        return self.was_committed

    def tidy(self) -> None:
        """Deletes what retention gives up, in the background; only where this rank leads."""
        self.close()  # else what is still to be deleted would be given up once more
        steps = [checkpoint.step for checkpoint in complete_checkpoints(self._folder)]
        doomed = [self._folder / name_of(step) for step in surplus(steps, self._keep, self._figures, self.in_use)]
        if self._place.leads and doomed:
            self._deleting = threading.Thread(target=self._delete, args=(doomed,), name="retention")
            self._deleting.start()

    def close(self) -> None:
        """Waits for deletions."""
        if self._deleting:
            self._deleting.join()

    @property
    def _scratch(self) -> Path:
        return self._folder / f"{WRITING}{name_of(self.step)}"

    def _write(self, snapshot: Snapshot) -> None:
        part = self._part = self._unwritten  # so that nobody takes the part of the save before for this one
        try:
            self._scratch.mkdir(exist_ok=True)
            size, crc = write_snapshot(self._scratch / part.name, snapshot)
            self._part = replace(part, size=size, crc=crc, fault="")
        except OSError as error:
            self._part = replace(part, fault=str(error.strerror or error))

    def _commit(self, parts: list[_Part]) -> str:
        """Writes the commit and gives the folder its name; what went wrong in words, or nothing."""
        before = complete_checkpoints(self._folder)
        commit = {
            "format": FORMAT,
            "step": self.step,
            "number": before[-1].number + 1 if before else 0,
            "written": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
            **self._facts,
            "files": {part.name: [part.size, part.crc] for part in parts if part.place == self._place.ranks[0]},
            "elsewhere": {part.name: part.host for part in parts if part.place != self._place.ranks[0]},
        }
        try:
            (self._scratch / COMMIT).write_text(json.dumps(commit, indent=1) + "\n", encoding="utf-8")
            sync(self._scratch / COMMIT)
            sync(self._scratch)
            publish(self._scratch, self._folder / name_of(self.step), self._tell)
        except OSError as error:
            return f"commit on {platform.node()}: {error.strerror or error}"
        return ""

    def _delete(self, doomed: list[Path]) -> None:
        for path in doomed:
            delete(path, self._tell)


def publish(scratch: Path, final: Path, tell: Callable[[str], None]) -> None:
    """Gives a committed folder its final name; a checkpoint that has it already goes, anything else is set aside."""
    if final.exists():  # a run that was continued from an older checkpoint comes by again
        if read(final):
            old = final.with_name(f"{DELETING}{final.name}")
            shutil.rmtree(old, ignore_errors=True)
            final.rename(old)
        else:
            set_aside(final)
    scratch.rename(final)
    sync(final.parent)
    shutil.rmtree(final.with_name(f"{DELETING}{final.name}"), ignore_errors=True)


def set_aside(path: Path) -> Path:
    """Renames what has a checkpoint's name and is none, so that it is neither used nor lost; returns where it lies."""
    for number in range(1, 1_000_000):
        aside = path.with_name(f"{DAMAGED}{path.name}" + (f"-{number}" if number > 1 else ""))
        if not aside.exists():
            path.rename(aside)
            sync(path.parent)
            return aside
    raise AssertionError(path)


def delete(path: Path, tell: Callable[[str], None]) -> None:
    """Renames before deleting, so that a half-deleted checkpoint never has a checkpoint's name."""
    doomed = path.with_name(f"{DELETING}{path.name}")
    try:
        path.rename(doomed)
        shutil.rmtree(doomed)
    except OSError as error:
        tell(f"checkpoint {path} could not be deleted ({error}); delete it by hand")


def sweep(folder: Path, tell: Callable[[str], None]) -> None:
    """Ends what a killed run began: a committed checkpoint gets its name, half-written and half-deleted ones go.

    Where a checkpoint was being replaced and neither has the name, the new one takes it.
    """
    for left in sorted(folder.glob(f"{WRITING}checkpoint-*")):
        final = left.with_name(left.name.removeprefix(WRITING))
        if read_commit(left) and not read(final):
            publish(left, final, tell)
        else:
            shutil.rmtree(left, ignore_errors=True)
    for left in folder.glob(f"{DELETING}checkpoint-*"):
        shutil.rmtree(left, ignore_errors=True)
    for left in folder.glob(".place-*"):
        left.unlink(missing_ok=True)
