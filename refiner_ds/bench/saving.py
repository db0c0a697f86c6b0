"""How long training stands still for a checkpoint, by several ways of saving it: knows no engine and no file."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

STEPS_ALONE = 5
"""Training steps that are measured beside no save."""


@dataclass(frozen=True)
class Saved:
    """What one save took.

    Attributes:
        stall_seconds: training stood still so long.
        steps: training steps that were made while it was written; none where it was waited for.
        step_seconds: mean of each of them.
    """

    stall_seconds: float
    steps: int = 0
    step_seconds: float = 0.0


class Saving(Protocol):
    """Saves one checkpoint after the other."""

    def begin(self) -> None:
        """Takes what is to be saved; returns while it is written."""

    @property
    def is_writing(self) -> bool:
        """Whether it is still being written."""

    def finish(self) -> None:
        """Waits until it is on the disk, and makes it a checkpoint."""


Way = Callable[[], Saved]
"""Saves once, and measures."""


def in_background(saving: Saving, step: Callable[[], None]) -> Saved:
    """Training goes on between begin and finish, until all is written and for one step at least."""
    stall = _seconds(saving.begin)
    steps, began = 0, time.perf_counter()
    while saving.is_writing or not steps:
        step()
        steps += 1
    step_seconds = (time.perf_counter() - began) / steps
    return Saved(stall + _seconds(saving.finish), steps, step_seconds)


def waited_for(saving: Saving) -> Saved:
    """The same save; training goes on once it is a checkpoint."""
    return Saved(_seconds(saving.begin) + _seconds(saving.finish))


def at_once(save: Callable[[], None]) -> Saved:
    """A save that is one call."""
    return Saved(_seconds(save))


def no_save(step: Callable[[], None]) -> Saved:
    """Training steps without any, to compare with."""
    began = time.perf_counter()
    for _ in range(STEPS_ALONE):
        step()
    return Saved(0.0, STEPS_ALONE, (time.perf_counter() - began) / STEPS_ALONE)


def measured(
    ways: Mapping[str, Way], rounds: int, settle: Callable[[], None], tell: Callable[[str, int, int], None]
) -> dict[str, list[Saved]]:
    """What each way took in each round; they take turns, and every second round goes backwards.

    Args:
        settle: called before each, so that none pays for what another one has left to the disk or the device.
    """
    found: dict[str, list[Saved]] = {name: [] for name in ways}
    done, total = 0, rounds * len(ways)
    for number in range(rounds):
        for name in [*ways][:: -1 if number % 2 else 1]:
            settle()
            found[name].append(ways[name]())
            done += 1
            tell("saving", done, total)
    return found


def _seconds(act: Callable[[], None]) -> float:
    began = time.perf_counter()
    act()
    return time.perf_counter() - began
