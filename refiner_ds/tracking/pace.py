"""How fast a run goes, by its journal."""

import itertools
from collections.abc import Iterable, Sequence
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
        silence: the longest time between two readings, in seconds.
    """

    step: int
    at: float
    seconds: float
    silence: float


def pace_of(lines: Iterable[Line]) -> Pace | None:
    """Between the last readings that one start of the run has made in a row; None where there is none."""
    row = _last_row([line for line in lines if READING in line.values])
    if not row:
        return None
    last, first = row[0], row[-1]
    seconds = (last.at - first.at) / (last.step - first.step) if last is not first else 0.0
    return Pace(last.step, last.at, seconds, max((b.at - a.at for b, a in itertools.pairwise(row)), default=0.0))


def _last_row(readings: Sequence[Line]) -> list[Line]:
    """From the last one back, for as long as they become fewer steps."""
    row: list[Line] = []
    for line in reversed(readings):
        if len(row) > READINGS or (row and line.step >= row[-1].step):
            break
        row.append(line)
    return row
