"""The limits of the flags of training, each with what lies beyond it."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from refiner_ds.config.training import Train
from refiner_ds.errors import UserError


@dataclass(frozen=True)
class Limit:
    """What a flag may be, in code and in words, and what any other value comes to."""

    allows: Callable[[Any], bool]
    remedy: str
    consequence: str


def _from(lowest: float, consequence: str) -> Limit:
    return Limit(lambda value: lowest <= value < math.inf, f"{lowest} or more", consequence)


def _above_zero(consequence: str) -> Limit:
    return Limit(lambda value: 0 < value < math.inf, "more than 0", consequence)


_FORGETTING = Limit(lambda value: 0 <= value < 1, "0 or more, below 1", "is no share of a moment to keep")

LIMITS = {
    "num_train_epochs": _from(1, "leaves nothing to train"),
    "max_train_steps": _from(1, "leaves nothing to train"),
    "learning_rate": _above_zero("lets nothing be learned"),
    "lr_warmup_steps": _from(0, "is no number of steps to warm up over"),
    "adam_beta1": _FORGETTING,
    "adam_beta2": _FORGETTING,
    "adam_weight_decay": _from(0, "makes weights grow instead of decay"),
    "adam_epsilon": _above_zero("lets AdamW divide by zero"),
    "condition_dropout_prob": Limit(
        lambda value: 0 <= value <= 1 / 7, "0 to 1/7", "is no probability that seven cases can have at once"
    ),
    "source_loss_weight": _from(0, "rewards what the loss should punish"),
    "snr_gamma": _above_zero("leaves no weight to any row"),
    "noise_offset": _from(0, "is no scale of noise"),
    "input_perturbation": _from(0, "is no scale of noise"),
    "lora_rank": _from(1, "leaves nothing to train"),
    "ema_decay": Limit(lambda value: 0 < value < 1, "more than 0, below 1", "averages nothing"),
    "checkpointing_steps": _from(0, "is no interval between checkpoints"),
    "checkpoints_total_limit": _from(1, "leaves no checkpoint to continue from"),
    "keep_best": _from(0, "is no number of checkpoints"),
    "keep_every": _from(0, "is no interval between checkpoints"),
    "save_before_end": _from(0, "is no number of seconds"),
    "validation_epochs": _from(0, "is no interval between validations"),
    "validation_steps": _from(1, "lets validation repair nothing"),
    "logging_steps": _from(1, "is no interval between readings"),
    "shuffle_window_shards": _from(1, "leaves no shard to shuffle"),
    "lanes": _from(1, "leaves nothing to draw from"),
    "max_bad_samples": _from(0, "is no number of samples"),
    "max_nonfinite_steps": _from(0, "is no number of updates"),
    "dataloader_num_workers": _from(0, "is no number of processes"),
    "timeout_minutes": _above_zero("ends the job at its first collective"),
}
"""By flag; one that is not given has no value to limit."""


def require_best(flags: Train, shards: str, held_out: int) -> None:
    """Refuses what asks for the best checkpoint where the shards hold nothing to validate on.

    Args:
        shards: where they are.
        held_out: samples of their validation split.

    Raises:
        UserError: names the first such flag.
    """
    if not held_out:
        _require_no_best(flags, f"shards {shards} hold no samples to validate on; pack some with --val")


def _require_no_best(flags: Train, reason: str) -> None:
    """reason: why no validation tells the best, and what to do."""
    asked = {
        f"--keep_best {flags.keep_best}": flags.keep_best,
        "--export_best": flags.export_best,
        f"--best_metric {flags.best_metric}": flags.best_metric != "psnr",
    }
    for told, is_asked in asked.items():
        if is_asked:
            raise UserError(f"{told} would have no effect, as {reason}, or leave it out.")


def check_limits(flags: Train) -> None:
    """Refuses what no training can be made of.

    Raises:
        UserError: names the first flag beyond its limit.
    """
    for name, limit in LIMITS.items():
        value = getattr(flags, name)
        if value is not None and not limit.allows(value):
            raise UserError(f"--{name} {value} {limit.consequence}; give {limit.remedy}.")
    for name in ("keep_best", "keep_every"):
        if getattr(flags, name) and flags.checkpoints_total_limit is None:
            raise UserError(
                f"--{name} {getattr(flags, name)} would have no effect, as all checkpoints are kept without a limit; "
                "add --checkpoints_total_limit, or leave it out."
            )
    if not flags.validation_epochs:
        _require_no_best(flags, "--validation_epochs 0 makes no validations that tell the best; give more")
    if flags.checkpointed_blocks and not flags.gradient_checkpointing:
        raise UserError(
            f"--checkpointed_blocks {flags.checkpointed_blocks} would have no effect, as all activations are kept; add "
            "--gradient_checkpointing, or leave it out."
        )
    if flags.ema_decay is not None and not flags.use_ema:
        raise UserError(
            f"--ema_decay {flags.ema_decay} would have no effect, as no average is kept; add --use_ema or leave it out."
        )
