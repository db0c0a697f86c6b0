"""Where a run continues: the newest checkpoint that is whole for all ranks; what is not is told and set aside."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from refiner_ds.checkpoint.layout import Checkpoint, damage, incomplete_checkpoints
from refiner_ds.checkpoint.place import Gather, Place
from refiner_ds.checkpoint.store import set_aside
from refiner_ds.errors import UserError

UNTOLD = (
    "train.output_dir", "train.resume_from_checkpoint", "train.shards", "train.shard_cache", "train.deepspeed_config",
    "train.tracking_uri", "train.experiment", "train.dataloader_num_workers", "train.pretrained_model_name_or_path",
    "train.accept_other_shards", "train.save_before_end", "train.timeout_minutes", "train.logging_steps",
    "train.export_best", "train.log_json",
)  # fmt: skip
"""Settings whose change changes nothing of what is computed."""
TOLD = ("train.", "optimizer.", "schedule.", "deepspeed.", "num_ranks")


def newest_whole(
    folder: Path,
    candidates: Sequence[Checkpoint],
    place: Place,
    gathered: Gather,
    is_given: bool,
    tell: Callable[[str], None],
) -> Checkpoint | None:
    """The first of the candidates, newest first, whose files all are what was written. All ranks must call.

    Every file is read and compared once, by one of the ranks that see it. What is damaged, and what has a checkpoint's
    name and lacks a part, is told and set aside, as its name will be needed.

    Args:
        is_given: the candidate was named, so that no other may stand in for it.

    Returns:
        None where there never was a checkpoint.

    Raises:
        UserError: the given one is damaged, or all are: then nothing is set aside.
    """
    faulty = incomplete_checkpoints(folder)
    steps_by_rank = gathered([checkpoint.step for checkpoint in candidates])
    chosen = None
    for checkpoint in candidates:
        if not all(checkpoint.step in steps for steps in steps_by_rank):
            faulty[checkpoint.path] = "another node has none of this step"
            continue
        found = gathered([*damage(checkpoint, place.share([*checkpoint.commit["files"]]))])
        if not any(found):
            chosen = checkpoint
            break
        faulty[checkpoint.path] = "; ".join(fault for each in found for fault in each)
        if is_given:
            break
    everywhere = [clause for each in gathered([f"{path}: {what}" for path, what in faulty.items()]) for clause in each]
    if chosen is None and everywhere:
        raise UserError(
            f"no checkpoint that could be continued is whole ({'; '.join(dict.fromkeys(everywhere))}); bring one back "
            "from a copy, name another one, or move them away to start afresh."
        )
    for path, what in faulty.items():
        aside = set_aside(path) if place.leads else path
        tell(f"{path} is no whole checkpoint ({what}), so it is not used and kept as {aside.name}")
    return chosen


def changes(held: dict[str, Any], present: dict[str, Any]) -> list[str]:
    """What is set otherwise than when a checkpoint was written, a clause each; the present value is what counts."""
    before, now = _flat(held), _flat(present)
    names = [name for name in now if name in before and name.startswith(TOLD)]
    return [f"{name} is {now[name]}, was {before[name]}" for name in names if _differs(name, before, now)]


def _differs(name: str, before: dict[str, Any], now: dict[str, Any]) -> bool:
    return name not in UNTOLD and str(before[name]) != str(now[name])


def _flat(settings: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in settings.items():
        flat |= _flat(value, f"{prefix}{name}.") if isinstance(value, dict) else {prefix + name: value}
    return flat
