"""The folder of a run: whose it is, where it continues, and the resolved settings that lie in it."""

import json
from pathlib import Path
from typing import Any

from refiner_ds.checkpoint.layout import Checkpoint, complete_checkpoints, read
from refiner_ds.config.optimizer import EIGHT_BIT
from refiner_ds.errors import UserError
from refiner_ds.state import STATE
from refiner_ds.supervise.log import LOGS
from refiner_ds.tracking.journal import SETTINGS
from refiner_ds.train.lock import LOCK

LATEST = "latest"
DIGEST = "shards_digest"
BEFORE = {
    "revision": None, "variant": None,
    "trainable": "all", "lora_rank": None, "prediction_type": None, "zero_terminal_snr": False,
    "shuffle_window_shards": None, "lanes": 1, "resampling": "exact",
}  # fmt: skip
"""What runs mean that were written before there was a choice."""
REMEDIES = {
    DIGEST: "name another folder, the same shards, or --accept_other_shards to go on with these from its step on.",
    "global_batch_size": "name another folder, or choose --train_batch_size and --gradient_accumulation_steps so that "
    "with the number of ranks they make {} again.",
}
"""Where there is more to do than to name another folder."""


def require_own(folder: Path, identity: dict[str, Any], takes_other_shards: bool = False) -> None:
    """Refuses a folder that belongs to something else: a run whose `identity` differs, or files of no run.

    Args:
        takes_other_shards: it may have been trained on other shards so far.

    Raises:
        UserError: names the first setting that differs.
    """
    # a run that died before it wrote anything has left these
    if not folder.exists() or (folder.is_dir() and all(path.name in (LOCK, LOGS, STATE) for path in folder.iterdir())):
        return
    try:
        held = dict(json.loads((folder / SETTINGS).read_text(encoding="utf-8"))["identity"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"--output_dir {folder} is not empty and holds no run, and training would mix its files with others; "
            "name another folder."
        ) from error
    if difference := _first_difference(held, identity, takes_other_shards):
        raise UserError(f"--output_dir {folder} holds another run: {difference}")


def _first_difference(held: dict[str, Any], identity: dict[str, Any], takes_other_shards: bool) -> str | None:
    """The first setting that makes what is held another run than ours, and what to do, in words."""
    held = {**BEFORE, **held}
    for name, value in identity.items():
        if held.get(name) != value and not (name == DIGEST and takes_other_shards):
            remedy = REMEDIES.get(name, "name another folder, or start the same command to continue that run.")
            return f"its {name} is {held.get(name)} and this one's is {value}; {remedy.format(held.get(name))}"
    return None


def candidates(
    folder: Path, choice: str, cut: dict[str, Any], identity: dict[str, Any], takes_other_shards: bool = False
) -> list[Checkpoint]:
    """The complete checkpoints that --resume_from_checkpoint allows, newest first: all of the run, or a given one.

    Args:
        cut: what decides how the optimizer's state is cut, as a checkpoint's commit says it: ranks, stage, optimizer.

    Raises:
        UserError: the given one is not complete, or one was written by another run or by an optimizer of another kind.
    """
    if choice == LATEST:
        found = complete_checkpoints(folder)[::-1]
    else:
        given = read(Path(choice)) or read(folder / choice)
        if given is None:
            raise UserError(
                f"--resume_from_checkpoint {choice} is no complete checkpoint, so there is nothing to continue from; "
                f"name a checkpoint-STEP folder, or 'latest'."
            )
        found = [given]
    for checkpoint in found:
        if difference := _first_difference(checkpoint.commit, identity, takes_other_shards):
            raise UserError(f"{checkpoint.path} belongs to another run: {difference}")
        _require_fit(checkpoint, cut)
    return found


def _require_fit(checkpoint: Checkpoint, cut: dict[str, Any]) -> None:
    """Any cut of moments in full precision can be made of any other; blocks of 8 bits only of the same."""
    held = checkpoint.commit
    names = ("optimizer", "num_ranks", "stage") if cut["optimizer"] == EIGHT_BIT else ("optimizer",)
    for name in names:
        if held[name] != cut[name]:
            reason = (
                "whose moments are not of the same kind"
                if name == "optimizer"
                else "and moments of 8 bits lie in blocks that cannot be cut anew"
            )
            raise UserError(
                f"{checkpoint.path} cannot be continued: its {name} is {held[name]} and this one's is {cut[name]}, "
                f"{reason}; start as it was written, or export it and train on from the export."
            )


def write_settings(folder: Path, settings: dict[str, Any]) -> None:
    """Writes the resolved settings beside the run."""
    folder.mkdir(parents=True, exist_ok=True)
    scratch = folder / f".{SETTINGS}"
    scratch.write_text(json.dumps(settings, indent=1, default=str) + "\n", encoding="utf-8")
    scratch.replace(folder / SETTINGS)
