"""Saving through an engine: everything under a temporary name, then the commit, one rename, and only then deletions."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

from refiner_ds.checkpoint.layout import COMMIT, complete_checkpoints, name_of
from refiner_ds.checkpoint.retention import surplus
from refiner_ds.folders import sync
from refiner_ds.world import World

WRITING, DELETING = ".writing-", ".deleting-"


class Writer(Protocol):
    """What writes and reads the shards of all ranks: an engine."""

    def save(self, folder: Path, tag: str) -> None:
        """Writes this rank's part into folder/tag."""

    def barrier(self) -> None:
        """Waits for all ranks."""


def save(
    writer: Writer,
    world: World,
    folder: Path,
    step: int,
    facts: dict[str, Any],
    total_limit: int | None,
    warn: Callable[[str], None],
) -> None:
    """Writes and commits folder/checkpoint-STEP, then deletes what retention gives up. All ranks must call.

    Args:
        facts: what the commit says beside step and files: number of ranks, precision, base, data digest, ...
        warn: told when a checkpoint that is no longer needed cannot be deleted; training goes on.
    """
    scratch = folder / f"{WRITING}{name_of(step)}"
    if world.is_main:
        _sweep(folder)
    writer.barrier()
    writer.save(folder, scratch.name)
    writer.barrier()  # files that are being written have other names
    for path in scratch.rglob("*"):
        sync(path)  # on every rank: what one node has written, another cannot bring to disk
    writer.barrier()
    if world.is_main:
        before = complete_checkpoints(folder)
        number = before[-1].number + 1 if before else 0
        _commit(scratch, folder / name_of(step), {"step": step, "number": number, **facts}, warn)
        for old in surplus([checkpoint.step for checkpoint in complete_checkpoints(folder)], total_limit):
            _delete(folder / name_of(old), warn)
    writer.barrier()


def _commit(scratch: Path, final: Path, facts: dict[str, Any], warn: Callable[[str], None]) -> None:
    """Writes and syncs the commit, and renames the folder to its final name."""
    files = sorted(path for path in scratch.rglob("*") if path.is_file())
    sizes = {str(path.relative_to(scratch)): path.stat().st_size for path in files}
    (scratch / COMMIT).write_text(json.dumps({**facts, "files": sizes}, indent=1) + "\n", encoding="utf-8")
    sync(scratch / COMMIT)
    sync(scratch)
    if final.exists():  # a run that was continued from an older checkpoint comes by again
        _delete(final, warn)
    scratch.rename(final)
    sync(final.parent)


def _delete(path: Path, warn: Callable[[str], None]) -> None:
    """Renames before deleting, so that a half-deleted checkpoint never has a checkpoint's name."""
    doomed = path.with_name(f"{DELETING}{path.name}")
    try:
        path.rename(doomed)
        shutil.rmtree(doomed)
    except OSError as error:
        warn(f"checkpoint {path} could not be deleted ({error}); delete it by hand")


def _sweep(folder: Path) -> None:
    """Clears what a killed run was writing or deleting; complete checkpoints never have such names."""
    for prefix in (WRITING, DELETING):
        for left in folder.glob(f"{prefix}checkpoint-*"):
            shutil.rmtree(left, ignore_errors=True)
