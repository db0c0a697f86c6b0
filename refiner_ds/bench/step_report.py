"""What the bench of the step says, as JSON and as Markdown, and what we promise of the step from encoded features."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from refiner_ds.bench.goals import Spread
from refiner_ds.bench.report import NOTHING, spread_as_json, table, told
from refiner_ds.bench.step import Row, Turn

OURS, ENCODED, BARE, BASELINE = "ours", "ours, encoded", "bare loop", "baseline's way"
RATIOS = ((OURS, BASELINE), (ENCODED, BASELINE), (ENCODED, OURS), (ENCODED, BARE))
"""Ways that are set against another, in pairs/s."""
LEAST = 0.95
"""Of the bare loop's pairs/s, what ours from encoded features reach at least, on a CPU with the tiny model."""
HEAD = ("step", "pairs/s", "ms a pair", "GFLOP a pair", "GFLOP/s", "of a matrix product", "peak MB")


def ratio_of(rows: Sequence[Row], name: str, other: str) -> Spread | None:
    """How many times the pairs/s of another way one makes, within each round."""
    turns = {row.contender.name: row.turns for row in rows}
    pairs = zip(turns[name], turns[other], strict=True)
    return Spread.of([one.pairs_per_second / two.pairs_per_second for one, two in pairs])


def is_kept(rows: Sequence[Row], about: Mapping[str, Any]) -> bool | None:
    """Whether the goal is kept; None where it does not hold, on a GPU or with the full model."""
    ratio = ratio_of(rows, ENCODED, BARE)
    if not ratio or (about["device"], about["size"]) != ("cpu", "tiny"):
        return None
    return ratio.median >= LEAST


def as_json(rows: Sequence[Row], about: Mapping[str, Any]) -> dict[str, Any]:
    """All figures of every round, what they come to, and the goal. `about` says device and size among others."""
    ratio = ratio_of(rows, ENCODED, BARE)
    return {
        "about": dict(about),
        "rows": [_row_as_json(row) for row in rows],
        "ratios": [
            {"row": name, "other": other, "measured": spread_as_json(ratio_of(rows, name, other))}
            for name, other in RATIOS
        ],
        "goal": {
            "row": ENCODED,
            "other": BARE,
            "at_least": LEAST,
            "measured": spread_as_json(ratio),
            "is_kept": is_kept(rows, about),
        },
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
    """The page: how it was measured, the ways, the ratios, the goal."""
    ratios = [[f"{name} / {other}", told(ratio_of(rows, name, other))] for name, other in RATIOS]
    kept = {True: "yes", False: "no", None: "not promised here"}[is_kept(rows, about)]
    goal = [
        f"{ENCODED}, against the {BARE}, tiny model on a CPU, >= {LEAST:g}",
        told(ratio_of(rows, ENCODED, BARE)),
        kept,
    ]
    parts = [
        f"`{about['command']}`\n\n{about['machine']}; {about['date']}; {about['what']}.",
        table(HEAD, [_line(row) for row in rows]),
        table(("pairs/s", "ratio"), ratios),
        table(("goal", "measured", "kept"), [goal]),
    ]
    return "\n\n".join(parts) + "\n"


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
