"""Saving through an engine: everything under a temporary name, then the commit, one rename, and only then deletions."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

from refiner_ds.checkpoint.layout import COMMIT, complete_checkpoints, name_of
from refiner_ds.checkpoint.retention import surplus
from refiner_ds.world import World


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
    scratch = folder / f".writing-{name_of(step)}"
    if world.is_main:
        shutil.rmtree(scratch, ignore_errors=True)  # of a run that was killed while saving
    writer.barrier()
    writer.save(folder, scratch.name)
    writer.barrier()
    if world.is_main:
        _commit(scratch, folder / name_of(step), step, facts)
        for old in surplus([checkpoint.step for checkpoint in complete_checkpoints(folder)], total_limit):
            try:
                _delete(folder / name_of(old))
            except OSError as error:
                warn(f"checkpoint {folder / name_of(old)} could not be deleted ({error}); delete it by hand")
    writer.barrier()


def _commit(scratch: Path, final: Path, step: int, facts: dict[str, Any]) -> None:
    """Syncs every file, writes the commit and renames the folder to its final name."""
    files = sorted(path for path in scratch.rglob("*") if path.is_file())
    for path in files:
        _sync(path)
    sizes = {str(path.relative_to(scratch)): path.stat().st_size for path in files}
    (scratch / COMMIT).write_text(
        json.dumps({"step": step, **facts, "files": sizes}, indent=1) + "\n", encoding="utf-8"
    )
    _sync(scratch / COMMIT)
    _sync(scratch)
    if final.exists():  # a run that was continued from an older checkpoint comes by again
        _delete(final)
    scratch.rename(final)
    _sync(final.parent)


def _delete(path: Path) -> None:
    """Renames before deleting, so that a half-deleted checkpoint never has a checkpoint's name."""
    doomed = path.with_name(f".deleting-{path.name}")
    shutil.rmtree(doomed, ignore_errors=True)
    path.rename(doomed)
    shutil.rmtree(doomed)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
