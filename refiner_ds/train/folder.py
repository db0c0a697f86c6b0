"""The folder of a run: whose it is, where it continues, and the resolved settings that lie in it."""

import fcntl
import json
import os
from pathlib import Path
from typing import Any

from refiner_ds.checkpoint.layout import Checkpoint, complete_checkpoints, read
from refiner_ds.errors import UserError
from refiner_ds.supervise.log import LOGS
from refiner_ds.tracking.journal import FINISHED, SETTINGS

LATEST = "latest"
BEFORE = {
    "optimizer": "AdamW", "use_ema": False, "revision": None, "variant": None,
    "trainable": "all", "lora_rank": None, "prediction_type": None, "zero_terminal_snr": False,
    "shuffle_window_shards": None, "lanes": 1, "resampling": "exact",
}  # fmt: skip
"""What runs and commits mean that were written before there was a choice."""
LOCK = ".lock"


def require_own(folder: Path, identity: dict[str, Any]) -> None:
    """Refuses a folder that belongs to something else: a run whose `identity` differs, or files of no run.

    Raises:
        UserError: names the first setting that differs.
    """
    # a run that died before it wrote anything has left its lock, and other ranks may have begun their logs
    if not folder.exists() or (folder.is_dir() and all(path.name in (LOCK, LOGS) for path in folder.iterdir())):
        return
    try:
        held = dict(json.loads((folder / SETTINGS).read_text(encoding="utf-8"))["identity"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"--output_dir {folder} is not empty and holds no run, and training would mix its files with others; "
            "name another folder."
        ) from error
    if difference := _first_difference(held, identity):
        raise UserError(
            f"--output_dir {folder} holds another run: {difference}; "
            "name another folder, or start the same command to continue that run."
        )


def _first_difference(held: dict[str, Any], identity: dict[str, Any]) -> str | None:
    """The first setting that makes what is held another run than ours, in words."""
    held = {**BEFORE, **held}
    for name, value in identity.items():
        if held.get(name) != value:
            return f"its {name} is {held.get(name)} and this one's is {value}"
    return None


def checkpoint_to_resume(
    folder: Path, choice: str, shards: dict[str, Any], identity: dict[str, Any]
) -> Checkpoint | None:
    """The checkpoint that --resume_from_checkpoint names: the newest complete one, or a given one; None starts afresh.

    Args:
        shards: what decides how the optimizer is cut: number of ranks, precision, ZeRO stage, optimizer.

    Raises:
        UserError: the given one is not complete, or it was written by another run or with other shards.
    """
    if choice == LATEST:
        found = complete_checkpoints(folder)
        checkpoint = found[-1] if found else None
    else:
        checkpoint = read(Path(choice)) or read(folder / choice)
        if checkpoint is None:
            raise UserError(
                f"--resume_from_checkpoint {choice} is no complete checkpoint, so there is nothing to continue from; "
                f"name a checkpoint-STEP folder, or 'latest'."
            )
    if checkpoint is None:
        return None
    if difference := _first_difference(checkpoint.commit, identity):
        raise UserError(
            f"{checkpoint.path} belongs to another run: {difference}; "
            "name a checkpoint of this run, or export it and train on from the export."
        )
    if difference := _first_difference(checkpoint.commit, shards):
        raise UserError(
            f"{checkpoint.path} cannot be continued: {difference}, so its optimizer shards do not fit; "
            "start as it was written, or export it and train on from the export."
        )
    return checkpoint


def hold(folder: Path) -> None:
    """Takes the folder for this process until it ends, however it ends; rank 0 calls this.

    Raises:
        UserError: another job is training in it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)  # never closed: the system lets go of it at the end
    except BlockingIOError as error:
        os.close(descriptor)
        raise UserError(
            f"--output_dir {folder} is being trained in by another job, and two would overwrite each other's "
            "checkpoints; wait for it, end it, or name another folder."
        ) from error


def write_settings(folder: Path, settings: dict[str, Any]) -> None:
    """Writes the resolved settings beside the run and takes away the marker of an earlier end."""
    folder.mkdir(parents=True, exist_ok=True)
    scratch = folder / f".{SETTINGS}"
    scratch.write_text(json.dumps(settings, indent=1, default=str) + "\n", encoding="utf-8")
    scratch.replace(folder / SETTINGS)
    (folder / FINISHED).unlink(missing_ok=True)


def write_finished(folder: Path, step: int) -> None:
    """The marker of a run that came to its end; launchers can exit with 0 after a crash, so this is what counts."""
    (folder / FINISHED).write_text(json.dumps({"step": step}) + "\n", encoding="utf-8")
