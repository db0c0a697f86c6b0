"""How fast a run goes, by its journal."""

import itertools
from collections.abc import Iterable
from dataclasses import dataclass

from refiner_ds.tracking.journal import Line

READING = "train/mfu"
"""Metric of the last step of each reading, which is told as soon as it is read."""
READINGS = 20
"""So many of the last are looked at."""


@dataclass(frozen=True)
class Pace:
    """How fast a run has gone of late, all of it: steps, validations and what stood between them.

    Attributes:
        step: the last that was read.
        at: when it was told, in seconds since 1970.
        seconds: of one step; 0 where there is one reading only.
        silence: the longest time between two readings of all, in seconds.
    """

    step: int
    at: float
    seconds: float
    silence: float


def pace_of(lines: Iterable[Line], since: float) -> Pace | None:
    """Between the last readings of one start of a run; None where there is none.

    Args:
        since: when that start began, in seconds since 1970.
    """
    readings = [line for line in lines if READING in line.values and line.at >= since]
    if not readings:
        return None
    last, first = readings[-1], readings[-READINGS:][0]
    seconds = (last.at - first.at) / (last.step - first.step) if last.step > first.step else 0.0
    silence = max((after.at - before.at for before, after in itertools.pairwise(readings)), default=0.0)
    return Pace(last.step, last.at, seconds, silence)
