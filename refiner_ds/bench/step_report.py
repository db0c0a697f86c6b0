"""What the bench of the step says, as JSON and as Markdown, and what we promise of the step from encoded features."""

from collections.abc import Mapping, Sequence
from typing import Any

from refiner_ds.bench import turns_report
from refiner_ds.bench.report import spread_as_json, table, told
from refiner_ds.bench.turns import Row
from refiner_ds.bench.turns_report import BASELINE, OURS, Subject, ratio_of

ENCODED, BARE = "ours, encoded", "bare loop"
STEP = Subject("step", "pair", ((OURS, BASELINE), (ENCODED, BASELINE), (ENCODED, OURS), (ENCODED, BARE)))
LEAST = 0.95
"""Of the bare loop's pairs/s, what ours from encoded features reach at least, on a CPU with the tiny model."""


def is_kept(rows: Sequence[Row], about: Mapping[str, Any]) -> bool | None:
    """Whether the goal is kept; None where it does not hold, on a GPU or with the full model."""
    ratio = ratio_of(rows, ENCODED, BARE)
    if not ratio or (about["device"], about["size"]) != ("cpu", "tiny"):
        return None
    return ratio.median >= LEAST


def as_json(rows: Sequence[Row], about: Mapping[str, Any]) -> dict[str, Any]:
    """All figures of every round, what they come to, and the goal. `about` says device and size among others."""
    goal = {
        "row": ENCODED,
        "other": BARE,
        "at_least": LEAST,
        "measured": spread_as_json(ratio_of(rows, ENCODED, BARE)),
        "is_kept": is_kept(rows, about),
    }
    return {**turns_report.as_json(rows, about, STEP), "goal": goal}


def as_markdown(rows: Sequence[Row], about: Mapping[str, Any]) -> str:
    """The page: how it was measured, the ways, the ratios, the goal."""
    kept = {True: "yes", False: "no", None: "not promised here"}[is_kept(rows, about)]
    goal = [
        f"{ENCODED}, against the {BARE}, tiny model on a CPU, >= {LEAST:g}",
        told(ratio_of(rows, ENCODED, BARE)),
        kept,
    ]
    return turns_report.as_markdown(rows, about, STEP, table(("goal", "measured", "kept"), [goal]))
