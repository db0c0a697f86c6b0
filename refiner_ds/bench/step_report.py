"""What the bench of the step says, as JSON and as Markdown, and what we promise of the step from encoded features."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from refiner_ds.bench import turns_report
from refiner_ds.bench.goals import Spread
from refiner_ds.bench.report import spread_as_json, table, told
from refiner_ds.bench.turns import Row
from refiner_ds.bench.turns_report import BASELINE, OURS, Subject, ratio_of

ENCODED, COMPILED, BARE = "ours, encoded", "ours, encoded, compiled", "bare loop"
FROM_SHARDS, FROM_ENCODED = "ours, from shards", "ours, from encoded shards"
STEP = Subject(
    "step",
    "pair",
    (
        (OURS, BASELINE),
        (ENCODED, BASELINE),
        (ENCODED, OURS),
        (ENCODED, BARE),
        (COMPILED, ENCODED),
        (COMPILED, BASELINE),
        (FROM_SHARDS, BASELINE),
        (FROM_SHARDS, OURS),
        (FROM_ENCODED, BASELINE),
        (FROM_ENCODED, ENCODED),
    ),
)


@dataclass(frozen=True)
class Goal:
    """A promise: on a CPU with the model of `size`, the median of row / other in pairs/s is at least `least`."""

    row: str
    other: str
    size: str
    least: float

    @property
    def text(self) -> str:
        """The goal in words."""
        return f"{self.row}, against {self.other}, {self.size} model on a CPU, >= {self.least:g}"

    def is_kept(self, measured: Spread | None, about: Mapping[str, Any]) -> bool | None:
        """Whether the goal is kept; None where it does not hold, on a GPU or with another model."""
        if not measured or (about["device"], about["size"]) != ("cpu", self.size):
            return None
        return measured.median >= self.least


GOALS = (Goal(ENCODED, BARE, "tiny", 0.95), Goal(ENCODED, OURS, "full-encoders", 1.6))
"""All of them."""


def as_json(rows: Sequence[Row], about: Mapping[str, Any], duel: Sequence[float] = ()) -> dict[str, Any]:
    """All figures of every round, what they come to, and the goals.

    Args:
        about: says device and size among others.
        duel: by round, how many times as fast as the bare loop ours from features is, where steps took turns.
    """
    told = {**turns_report.as_json(rows, about, STEP), "duel": [*duel]}
    return {**told, "goals": [_goal_as_json(goal, rows, about, duel) for goal in GOALS]}


def _measured(goal: Goal, rows: Sequence[Row], duel: Sequence[float]) -> Spread | None:
    """Step by step, where that was measured."""
    is_duel = duel and (goal.row, goal.other) == (ENCODED, BARE)
    return Spread.of(duel) if is_duel else ratio_of(rows, goal.row, goal.other)


def _goal_as_json(goal: Goal, rows: Sequence[Row], about: Mapping[str, Any], duel: Sequence[float]) -> dict[str, Any]:
    measured = _measured(goal, rows, duel)
    return {
        "goal": goal.text,
        "row": goal.row,
        "other": goal.other,
        "size": goal.size,
        "at_least": goal.least,
        "measured": spread_as_json(measured),
        "is_kept": goal.is_kept(measured, about),
    }


def as_markdown(rows: Sequence[Row], about: Mapping[str, Any], duel: Sequence[float] = ()) -> str:
    """The page: how it was measured, the ways, the ratios, the goals; arguments as for `as_json`."""
    goals = table(("goal", "measured", "kept"), [_goal_line(goal, rows, about, duel) for goal in GOALS])
    more = [f"{ENCODED} / {BARE}, a step of each in turn: {told(Spread.of(duel))}."] if duel else []
    return turns_report.as_markdown(rows, about, STEP, *more, goals)


def _goal_line(goal: Goal, rows: Sequence[Row], about: Mapping[str, Any], duel: Sequence[float]) -> list[str]:
    measured = _measured(goal, rows, duel)
    kept = {True: "yes", False: "no", None: "not promised here"}[goal.is_kept(measured, about)]
    return [goal.text, told(measured), kept]
