"""The training loop: steps in order, with readings, validations and checkpoints at their times."""

import contextlib
from collections.abc import Callable
from dataclasses import dataclass

from refiner_ds.data.stream import Stream
from refiner_ds.refiners.protocol import Refiner
from refiner_ds.train.engine import Engine
from refiner_ds.train.meter import Meter
from refiner_ds.train.schedule import Schedule
from refiner_ds.train.step import optimizer_step


@dataclass(frozen=True)
class Times:
    """When what happens, in optimizer steps; an interval of zero is never."""

    first: int
    last: int
    logging: int
    checkpointing: int
    validation: int


@dataclass(frozen=True)
class Hooks:
    """What the loop calls at its times; all ranks call each of them.

    Attributes:
        begin: the number of the step that is about to be made.
        log: metrics of one step.
        save: writes a checkpoint of the given number of completed steps.
        validate: validates after the given number of completed steps.
        replaced: broken samples that others stand in for: those found since the last reading, and how many in all; may
            end the run.
    """

    begin: Callable[[int], None]
    log: Callable[[int, dict[str, float]], None]
    save: Callable[[int], None]
    validate: Callable[[int], None]
    replaced: Callable[[list[str], int], None]


def train(
    refiner: Refiner,
    engine: Engine,
    stream: Stream,
    schedule: Schedule,
    times: Times,
    accumulation_steps: int,
    seed: int,
    hooks: Hooks,
) -> None:
    """Trains from update times.first to times.last, saving and validating at the end as well. All ranks must call."""
    with contextlib.closing(stream.batches(times.first, times.last)) as batches:
        meter = Meter(engine, stream.order.global_batch_size)
        for step in range(times.first, times.last):
            hooks.begin(step)
            rate = schedule(step)
            result = optimizer_step(refiner, engine, batches, accumulation_steps, rate, seed)
            done, is_last = step + 1, step + 1 == times.last
            meter.add(done, rate, result)
            if is_last or any(
                _is_time(done, interval) for interval in (times.logging, times.checkpointing, times.validation)
            ):
                known = len(meter.bad_samples)
                for line in meter.read():
                    hooks.log(*line)
                hooks.replaced(meter.bad_samples[known:], len(meter.bad_samples))
            with meter.pause():
                if is_last or _is_time(done, times.checkpointing):
                    hooks.save(done)
                if _is_time(done, times.validation) or (is_last and times.validation):
                    hooks.validate(done)


def _is_time(step: int, interval: int) -> bool:
    return interval > 0 and step % interval == 0
