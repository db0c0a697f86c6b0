"""Samplers of diffusers in each other's place, over the noise that the refiner was trained on."""

import inspect
from typing import Any

from diffusers import schedulers

UNFIT = {"EDMEulerScheduler", "DPMSolverSDEScheduler"}
"""Diffusers holds them for compatible: one has noise of its own, one needs a library that few have."""


def sampler_in_place_of(scheduler: Any, name: str) -> Any:
    """The sampler of diffusers with the class name `name`, set up as `scheduler` is.

    Raises:
        ValueError: there is none of this name that could take its place; names those that can.
    """
    fitting = {kind.__name__ for kind in scheduler.compatibles} - UNFIT
    if scheduler.config.get("rescale_betas_zero_snr"):
        fitting = {name for name in fitting if "rescale_betas_zero_snr" in _settings(name)}
    if name not in fitting:
        raise ValueError(
            f"scheduler {name} cannot take the place of {type(scheduler).__name__}; "
            f"take one of {', '.join(sorted(fitting))}."
        )
    return make_sampler(name, dict(scheduler.config))


def make_sampler(name: str, config: dict[str, Any], **changes: Any) -> Any:
    """A sampler of diffusers by its class name; latents are never clipped, as some would for pictures in [-1, 1]."""
    unclipped: dict[str, Any] = {key: False for key in ("clip_sample", "thresholding") if key in _settings(name)}
    return getattr(schedulers, name).from_config({**config, **unclipped, **changes})


def _settings(name: str) -> set[str]:
    return set(inspect.signature(getattr(schedulers, name).__init__).parameters)
