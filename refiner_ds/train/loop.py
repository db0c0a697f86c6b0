"""The training loop: steps in order, with readings, validations and checkpoints at their times."""

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from refiner_ds.data.stream import Stream
from refiner_ds.refiners.protocol import Refiner
from refiner_ds.train.engine import Engine
from refiner_ds.train.meter import Meter
from refiner_ds.train.schedule import Schedule
from refiner_ds.train.step import optimizer_step
from refiner_ds.train.system import Sampler
from refiner_ds.train.waiting import Waiting
from refiner_ds.train.work import Work


@dataclass(frozen=True)
class Times:
    """When what happens, in optimizer steps; an interval of zero is never."""

    first: int
    last: int
    logging: int
    checkpointing: int
    validation: int


class Hooks(Protocol):
    """What the loop calls at its times; all ranks call each of them."""

    def begin(self, step: int) -> None:
        """Step number `step` is about to be made."""

    def goes_on(self) -> bool:
        """Before each micro-batch: false, on all ranks alike, where training shall stop."""

    def log(self, step: int, metrics: dict[str, float], slowest: str) -> None:
        """Metrics of one step, and the slowest rank in words, empty unless it stands out."""

    def replaced(self, new: list[str], count: int) -> None:
        """Broken samples that others stand in for: those found since the last reading, and how many in all."""

    def not_applied(self, step: int, micro_losses: Sequence[Tensor]) -> None:
        """Step number `step` left the weights as they were; with the loss of each of its micro-batches on this rank."""

    def save(self, done: int) -> None:
        """Begins to write a checkpoint of so many completed steps."""

    def validate(self, done: int) -> None:
        """Validates after so many completed steps."""


def train(
    refiner: Refiner,
    engine: Engine,
    stream: Stream,
    schedule: Schedule,
    times: Times,
    accumulation_steps: int,
    seed: int,
    hooks: Hooks,
    sampler: Sampler,
) -> int:
    """Trains from update times.first to times.last, saving and validating at the end as well. All ranks must call.

    Args:
        sampler: of this rank.

    Returns:
        completed steps: fewer than times.last where `hooks.goes_on` said no.
    """
    with contextlib.closing(stream.batches(times.first, times.last)) as batches:
        waiting, work = Waiting(batches), Work(engine.device, engine.eagerly if engine.compiles else None)
        meter = Meter(engine, stream.order.global_batch_size, waiting, work, sampler)
        for step in range(times.first, times.last):
            hooks.begin(step)
            rate = schedule(step)
            result = optimizer_step(refiner, engine, waiting, work, accumulation_steps, rate, seed, hooks.goes_on)
            if result is None:
                _read(meter, hooks)
                return step
            done, is_last = step + 1, step + 1 == times.last
            meter.add(done, rate, result)
            if not engine.was_applied:
                _read(meter, hooks)
                hooks.not_applied(step, result.micro_losses)
            if is_last or any(
                _is_time(done, interval) for interval in (times.logging, times.checkpointing, times.validation)
            ):
                _read(meter, hooks)
            with meter.pause():
                if is_last or _is_time(done, times.checkpointing):
                    hooks.save(done)
                if _is_time(done, times.validation) or (is_last and times.validation):
                    hooks.validate(done)
    return times.last


def _read(meter: Meter, hooks: Hooks) -> None:
    known = len(meter.bad_samples)
    for step, metrics in meter.read():
        hooks.log(step, metrics, meter.slowest)
    hooks.replaced(meter.bad_samples[known:], len(meter.bad_samples))


def _is_time(step: int, interval: int) -> bool:
    return interval > 0 and step % interval == 0
