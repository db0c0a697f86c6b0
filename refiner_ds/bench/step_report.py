"""What the bench of the step says, as JSON and as Markdown, and what we promise of the step from encoded features."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from refiner_ds.bench.goals import Spread
from refiner_ds.bench.report import NOTHING, spread_as_json, table, told
from refiner_ds.bench.step import Row, Turn

OURS, ENCODED, BARE, BASELINE = "ours", "ours, encoded", "bare loop", "baseline's way"
RATIOS = ((OURS, BASELINE), (ENCODED, BASELINE), (ENCODED, OURS), (ENCODED, BARE))
"""Ways that are set against another, in pairs/s."""
HEAD = ("step", "pairs/s", "ms a pair", "GFLOP a pair", "GFLOP/s", "of a matrix product", "peak MB")


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


def ratio_of(rows: Sequence[Row], name: str, other: str) -> Spread | None:
    """How many times the pairs/s of another way one makes, within each round."""
    turns = {row.contender.name: row.turns for row in rows}
    pairs = zip(turns[name], turns[other], strict=True)
    return Spread.of([one.pairs_per_second / two.pairs_per_second for one, two in pairs])


def as_json(rows: Sequence[Row], about: Mapping[str, Any]) -> dict[str, Any]:
    """All figures of every round, what they come to, and the goals. `about` says device and size among others."""
    return {
        "about": dict(about),
        "rows": [_row_as_json(row) for row in rows],
        "ratios": [
            {"row": name, "other": other, "measured": spread_as_json(ratio_of(rows, name, other))}
            for name, other in RATIOS
        ],
        "goals": [_goal_as_json(goal, rows, about) for goal in GOALS],
    }


def _goal_as_json(goal: Goal, rows: Sequence[Row], about: Mapping[str, Any]) -> dict[str, Any]:
    measured = ratio_of(rows, goal.row, goal.other)
    return {
        "goal": goal.text,
        "row": goal.row,
        "other": goal.other,
        "size": goal.size,
        "at_least": goal.least,
        "measured": spread_as_json(measured),
        "is_kept": goal.is_kept(measured, about),
    }


def _row_as_json(row: Row) -> dict[str, Any]:
    flops = row.flops_per_pair
    return {
        "name": row.contender.name,
        "precision": _precision(row),
        "pairs_per_second": spread_as_json(Spread.of([turn.pairs_per_second for turn in row.turns])),
        "tflop_per_pair": flops / 1e12,
        "tflop_per_second": _plain(Spread.of([flops * turn.pairs_per_second / 1e12 for turn in row.turns])),
        "share_of_product": spread_as_json(_share(row)),
        "peak_mb": max(turn.peak_mb for turn in row.turns),
        "rounds": [{**asdict(turn), "pairs_per_second": turn.pairs_per_second} for turn in row.turns],
    }


def as_markdown(rows: Sequence[Row], about: Mapping[str, Any]) -> str:
    """The page: how it was measured, the ways, the ratios, the goals."""
    ratios = [[f"{name} / {other}", told(ratio_of(rows, name, other))] for name, other in RATIOS]
    parts = [
        f"`{about['command']}`\n\n{about['machine']}; {about['date']}; {about['what']}.",
        table(HEAD, [_line(row) for row in rows]),
        table(("pairs/s", "ratio"), ratios),
        table(("goal", "measured", "kept"), [_goal_line(goal, rows, about) for goal in GOALS]),
    ]
    return "\n\n".join(parts) + "\n"


def _goal_line(goal: Goal, rows: Sequence[Row], about: Mapping[str, Any]) -> list[str]:
    measured = ratio_of(rows, goal.row, goal.other)
    kept = {True: "yes", False: "no", None: "not promised here"}[goal.is_kept(measured, about)]
    return [goal.text, told(measured), kept]


def _line(row: Row) -> list[str]:
    def spread(of: Any) -> str:
        found = Spread.of([of(turn) for turn in row.turns])
        return f"{found.median:.3g} [{found.min:.3g}..{found.max:.3g}]" if found else NOTHING

    def gflops(turn: Turn) -> float:
        return row.flops_per_pair * turn.pairs_per_second / 1e9

    share = _share(row)
    return [
        f"{row.contender.name} ({_precision(row)})",
        spread(lambda turn: turn.pairs_per_second),
        spread(lambda turn: 1000 / turn.pairs_per_second),
        f"{row.flops_per_pair / 1e9:.4g}",
        spread(gflops),
        f"{share.median:.0%} [{share.min:.0%}..{share.max:.0%}]" if share else NOTHING,
        f"{max(turn.peak_mb for turn in row.turns):.0f}",
    ]


def _share(row: Row) -> Spread | None:
    """Of the FLOP/s of a large matrix product in the same precision and round."""
    return Spread.of([row.flops_per_pair * turn.pairs_per_second / turn.product_flops for turn in row.turns])


def _precision(row: Row) -> str:
    names = {"float32": "fp32", "bfloat16": "bf16", "float16": "fp16"}
    return names[str(row.contender.dtype).removeprefix("torch.")]


def _plain(spread: Spread | None) -> dict[str, float] | None:
    return asdict(spread) if spread else None
