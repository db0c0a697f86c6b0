"""Learning rate by optimizer step: pure functions of the step, so that a resumed run only has to know its number."""

import math
from collections.abc import Callable
from typing import Any

from refiner_ds.config.scheduler import DEEPSPEED, TORCH, ScheduleChoice
from refiner_ds.errors import UserError
from refiner_ds.train.torch_schedule import rates_of_torch

Schedule = Callable[[int], float]


def make_schedule(choice: ScheduleChoice, peak: float, total_steps: int) -> Schedule:
    """The learning rate of update `step` = 0, 1, ..., total_steps - 1.

    Raises:
        UserError: parameters of a scheduler section that the type does not take, or that yield no learning rate.
    """
    params = choice.over(total_steps).params
    if choice.name in TORCH:
        return _tabulated(choice.name, rates_of_torch(choice.name, params, peak, total_steps))
    if choice.name in DEEPSPEED:
        _require_warmup(params, peak)
        rate = _warmup_of(choice.name, params, peak)
        return _tabulated(choice.name, [rate(step) for step in range(total_steps)])
    return _shaped(choice.name, peak, params["warmup_num_steps"], total_steps)


def _shaped(name: str, peak: float, warmup_steps: int, total_steps: int) -> Schedule:
    """The shapes of diffusers' training scripts, by their names.

    The rate rises linearly over `warmup_steps` (not for "constant") and then follows the shape: constant, or from
    `peak` to zero linearly, by a half cosine, by a polynomial of power 1 that ends at 1e-7, or by one restarted cosine.
    """
    shapes: dict[str, Callable[[float], float]] = {
        "constant": lambda progress: 1.0,
        "constant_with_warmup": lambda progress: 1.0,
        "linear": lambda progress: 1.0 - progress,
        "cosine": lambda progress: 0.5 * (1.0 + math.cos(math.pi * progress)),
        "cosine_with_restarts": lambda progress: (
            0.5 * (1.0 + math.cos(math.pi * (progress % 1.0))) if progress < 1 else 0.0
        ),
        "polynomial": lambda progress: (1.0 - progress) * (1.0 - 1e-7 / peak) + 1e-7 / peak,
    }
    shape = shapes[name]
    warmup = 0 if name == "constant" else warmup_steps

    def rate(step: int) -> float:
        if step < warmup:
            return peak * (step + 1) / (warmup + 1)
        return peak * shape(min(1.0, (step - warmup) / max(1, total_steps - warmup)))

    return rate


def _warmup_of(name: str, params: dict[str, Any], peak: float) -> Schedule:
    """DeepSpeed's WarmupLR, WarmupDecayLR and WarmupCosineLR: update k has the rate of their iteration k.

    With W warm-up steps and T in all, the share g of the way from the least rate to the peak is ln(k+1) / ln W or k/W
    while k < W; then 1, or (T-k) / (T-W), or a half cosine of (k-W+1) / (T-W) down to cos_min_ratio. W is at least 2,
    or 0 for no warm-up, which DeepSpeed refuses.

    Source: deepspeed.readthedocs.io/en/latest/schedulers.html. DeepSpeed itself applies the rates a step or two late
    (github.com/deepspeedai/DeepSpeed/issues/6569).
    """
    warmup = max(2, params["warmup_num_steps"]) if params["warmup_num_steps"] else 0
    total = params.get("total_num_steps", 0)

    def rising(step: int) -> float:
        return math.log(step + 1) / math.log(warmup) if params["warmup_type"] == "log" else step / warmup

    def falling(step: int) -> float:
        return max(0.0, (total - step) / max(1, total - warmup)) if name == "WarmupDecayLR" else 1.0

    def cosine(step: int) -> float:
        progress = min(1.0, (step - warmup + 1) / max(1, total - warmup))
        least = params["cos_min_ratio"]
        return max(0.0, least + (1.0 - least) * (1.0 + math.cos(math.pi * progress)) / 2)

    if name == "WarmupCosineLR":
        start = params["warmup_min_ratio"]
        return lambda step: peak * (start + (1.0 - start) * rising(step) if step < warmup else cosine(step))
    lowest = params["warmup_min_lr"]
    return lambda step: lowest + (peak - lowest) * (rising(step) if step < warmup else falling(step))


def _require_warmup(params: dict[str, Any], peak: float) -> None:
    for name, value in params.items():
        if name == "warmup_type":
            is_sound, remedy = value in ("log", "linear"), '"log" or "linear"'
        elif name.endswith("_steps"):
            is_sound, remedy = type(value) is int and value >= 0, "a whole number of steps"
        elif name == "warmup_min_lr":
            is_sound, remedy = type(value) in (int, float) and 0 <= value <= peak, f"0 to the peak, {peak:g}"
        else:
            is_sound, remedy = type(value) in (int, float) and 0 <= value <= 1, "a share of the peak, 0 to 1"
        if not is_sound:
            raise UserError(f"scheduler.params.{name} {value} in the DeepSpeed JSON shapes no rate; write {remedy}.")
    warmup, total = params["warmup_num_steps"], params.get("total_num_steps", math.inf)
    if warmup >= total:
        raise UserError(
            f"scheduler.params.warmup_num_steps {warmup} in the DeepSpeed JSON is not below total_num_steps {total}: "
            "the peak would never be reached; write fewer."
        )


def _tabulated(name: str, rates: list[float]) -> Schedule:
    rates = [0.0 if -1e-12 < rate < 0 else rate for rate in rates]  # rounding at the end of a fall
    for step, rate in enumerate(rates):
        if not 0 <= rate < math.inf:
            raise UserError(
                f"scheduler.type {name} in the DeepSpeed JSON comes to the learning rate {rate} at step {step}, with "
                "which nothing can be trained; change its params."
            )
    return rates.__getitem__
