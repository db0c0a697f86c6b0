"""Learning rate by optimizer step: pure functions with the names and shapes that diffusers' training scripts use."""

import math
from collections.abc import Callable

Schedule = Callable[[int], float]


def schedule_of(name: str, peak: float, warmup_steps: int, total_steps: int) -> Schedule:
    """The learning rate of update `step` = 0, 1, ..., total_steps - 1.

    It rises linearly over `warmup_steps` (not for "constant") and then follows the shape `name`: constant, or from
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
