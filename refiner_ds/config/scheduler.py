"""Which learning rate: the scheduler section of the DeepSpeed JSON, the flags beside it, and the peak they agree on."""

import json
from dataclasses import dataclass
from typing import Any

from refiner_ds.config.auto import AUTO, owned, refuse, require_no_autos, take_section
from refiner_ds.config.limits import LIMITS
from refiner_ds.config.training import Train
from refiner_ds.errors import UserError

_WARMUP = {"warmup_num_steps": 1000, "warmup_type": "log"}
DEEPSPEED: dict[str, dict[str, Any]] = {
    "WarmupLR": {"warmup_min_lr": 0.0, "warmup_max_lr": AUTO, **_WARMUP},
    "WarmupDecayLR": {"warmup_min_lr": 0.0, "warmup_max_lr": AUTO, **_WARMUP, "total_num_steps": AUTO},
    "WarmupCosineLR": {"warmup_min_ratio": 0.0, "cos_min_ratio": 1e-4, **_WARMUP, "total_num_steps": AUTO},
}
"""DeepSpeed's schedulers with their defaults; the peak and the end of the run are open where DeepSpeed has numbers."""
TORCH = (
    *("ConstantLR", "LinearLR", "PolynomialLR", "ExponentialLR", "StepLR", "MultiStepLR"),
    *("CosineAnnealingLR", "CosineAnnealingWarmRestarts", "OneCycleLR", "CyclicLR"),
)
"""Classes of torch.optim.lr_scheduler whose rate depends on nothing but the step."""
PEAK = {"WarmupLR": "warmup_max_lr", "WarmupDecayLR": "warmup_max_lr", "OneCycleLR": "max_lr", "CyclicLR": "max_lr"}
"""The parameter that is the peak rate, where a type has one."""
TOTALS = ("total_num_steps", "total_steps", "total_iters", "T_max")
"""Parameters whose "auto" is the number of steps of the run."""

_CYCLES = "WarmupCosineLR, or OneCycleLR with cycle_momentum false"
_CALLS = "it takes functions or schedulers, which JSON cannot hold; take another type"
REFUSED = {
    "onecycle": f"it cycles the momentum, which a resumed run cannot seek; take {_CYCLES}",
    "lrrangetest": "its rate grows until training breaks, which is a search; take WarmupLR",
    "reducelronplateau": "its rate depends on the losses, so a resumed run cannot seek it; take WarmupDecayLR",
    **dict.fromkeys(("lambdalr", "multiplicativelr", "sequentiallr", "chainedscheduler"), _CALLS),
}
"""By the type in lower case; whatever else is not supported is refused as unknown."""


@dataclass(frozen=True)
class ScheduleChoice:
    """A shape of the learning rate: a name of diffusers (lower case), or a type of DEEPSPEED or TORCH, with its params.

    The peak rate is not in it; a parameter of TOTALS that says "auto" is the number of steps of the run.
    """

    name: str
    params: dict[str, Any]

    def over(self, total_steps: int) -> "ScheduleChoice":
        """The choice for a run of so many steps, with nothing left open."""
        return ScheduleChoice(self.name, {k: total_steps if v == AUTO else v for k, v in self.params.items()})


def take_schedule(config: dict[str, Any], flags: Train) -> tuple[ScheduleChoice, dict[str, Any]]:
    """Takes the scheduler section out of the JSON: the choice, and the peak rate that it names, by its dotted name.

    Without a section it is --lr_scheduler with --lr_warmup_steps.

    Raises:
        UserError: a type that is not supported, or a flag that contradicts the section or would have no effect.
    """
    section = take_section(config, "scheduler", (*DEEPSPEED, *TORCH), REFUSED)
    if section is None:
        if flags.lr_warmup_steps and (flags.lr_scheduler or "constant") == "constant":
            raise UserError(
                f"--lr_warmup_steps {flags.lr_warmup_steps} would have no effect, as --lr_scheduler constant has no "
                "warm-up; take constant_with_warmup, or leave it out."
            )
        return ScheduleChoice(flags.lr_scheduler or "constant", {"warmup_num_steps": flags.lr_warmup_steps or 0}), {}
    name, params = section
    if flags.lr_scheduler is not None:
        raise UserError(
            f"--lr_scheduler {flags.lr_scheduler} contradicts scheduler.type {name} in the DeepSpeed JSON, and only "
            "one can hold; leave the flag out, or remove the section."
        )
    if name in DEEPSPEED:
        params = _fill_warmup(name, params, flags.lr_warmup_steps)
    elif flags.lr_warmup_steps is not None:
        raise UserError(
            f"--lr_warmup_steps {flags.lr_warmup_steps} would have no effect, as scheduler.type {name} in the "
            "DeepSpeed JSON warms up by its own parameters or not at all; leave the flag out, or remove the section."
        )
    peak = {f"scheduler.params.{PEAK[name]}": params.pop(PEAK[name], AUTO)} if name in PEAK else {}
    require_no_autos({k: v for k, v in params.items() if k not in TOTALS}, "scheduler.params.")
    return ScheduleChoice(name, params), peak


def _fill_warmup(name: str, params: dict[str, Any], warmup_steps: int | None) -> dict[str, Any]:
    known = DEEPSPEED[name]
    if strange := sorted(params.keys() - known):
        refuse(f"scheduler.params.{strange[0]}", f"{name} takes {', '.join(known)}; remove it")
    params = {**known, **params}
    if params.get("warmup_min_lr") == AUTO:
        params["warmup_min_lr"] = 0.0
    owned(params, "warmup_num_steps", "--lr_warmup_steps", warmup_steps, 0, "scheduler.params.")
    return params


def peak_rate(said: dict[str, Any]) -> float:
    """The one learning rate that flag and JSON name, by who says it; 1e-4 where nobody says one.

    Raises:
        UserError: two rates that differ, or one that is none.
    """
    rates = {name: rate for name, rate in said.items() if rate is not None and rate != AUTO}
    for name, rate in rates.items():
        if type(rate) not in (int, float) or not LIMITS["learning_rate"].allows(rate):
            raise UserError(f"{name} {json.dumps(rate)} {LIMITS['learning_rate'].consequence}; write a number above 0.")
    (first, rate), *others = rates.items() or {"": 1e-4}.items()
    for name, other in others:
        if other != rate:
            remedy = f'leave the flag out, or set "{name.rpartition(".")[2]}": "auto"'
            if not first.startswith("--"):
                remedy = 'set one of the two to "auto"'
            raise UserError(
                f"{first} {rate} contradicts {name} {other} in the DeepSpeed JSON, and a run has one peak rate; "
                f"{remedy}."
            )
    return float(rate)
