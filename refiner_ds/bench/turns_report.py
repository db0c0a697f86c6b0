"""What came of a race in turns, as JSON and as Markdown: how it was measured, the ways, and their ratios."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from refiner_ds.bench.goals import Spread
from refiner_ds.bench.report import NOTHING, spread_as_json, table, told
from refiner_ds.bench.turns import Row, Turn

OURS, BASELINE = "ours", "baseline's way"


@dataclass(frozen=True)
class Subject:
    """What is measured, in words.

    Attributes:
        name: what the ways do.
        unit: what is counted of it.
        ratios: ways that are set against another, by what they make of that in a second.
    """

    name: str
    unit: str
    ratios: tuple[tuple[str, str], ...]


def ratio_of(rows: Sequence[Row], name: str, other: str) -> Spread | None:
    """How many times as fast as another way one is, within each round."""
    turns = {row.contender.name: row.turns for row in rows}
    pairs = zip(turns[name], turns[other], strict=True)
    return Spread.of([one.per_second / two.per_second for one, two in pairs])


def as_json(rows: Sequence[Row], about: Mapping[str, Any], subject: Subject) -> dict[str, Any]:
    """All figures of every round, and what they come to."""
    return {
        "about": dict(about),
        "rows": [_row_as_json(row, subject.unit) for row in rows],
        "ratios": [
            {"row": name, "other": other, "measured": spread_as_json(ratio_of(rows, name, other))}
            for name, other in _ratios(rows, subject)
        ],
    }


def _ratios(rows: Sequence[Row], subject: Subject) -> list[tuple[str, str]]:
    """Those of the subject whose ways were both measured."""
    measured = {row.contender.name for row in rows}
    return [pair for pair in subject.ratios if measured.issuperset(pair)]


def _row_as_json(row: Row, unit: str) -> dict[str, Any]:
    flops = row.flops_each
    return {
        "name": row.contender.name,
        "precision": _precision(row),
        f"{unit}s_per_second": _plain([turn.per_second for turn in row.turns]),
        f"tflop_per_{unit}": flops / 1e12,
        "tflop_per_second": _plain([flops * turn.per_second / 1e12 for turn in row.turns]),
        "share_of_product": spread_as_json(_share(row)),
        "waiting_share": spread_as_json(_waiting(row)),
        "peak_mb": max(turn.peak_mb for turn in row.turns),
        "rounds": [{**asdict(turn), f"{unit}s_per_second": turn.per_second} for turn in row.turns],
    }


def as_markdown(rows: Sequence[Row], about: Mapping[str, Any], subject: Subject, *more: str) -> str:
    """The page: how it was measured, the ways, their ratios, and `more` tables."""
    unit, waits = subject.unit, any(turn.waited for row in rows for turn in row.turns)
    head = (
        *(subject.name, f"{unit}s/s", f"ms a {unit}", f"GFLOP a {unit}"),
        *("GFLOP/s", "of a matrix product", *(["waiting for data"] if waits else []), "peak MB"),
    )
    ratios = [[f"{name} / {other}", told(ratio_of(rows, name, other))] for name, other in _ratios(rows, subject)]
    parts = [
        f"`{about['command']}`\n\n{about['machine']}; {about['date']}; {about['what']}.",
        table(head, [_line(row, waits) for row in rows]),
        table((f"{unit}s/s", "ratio"), ratios),
        *more,
    ]
    return "\n\n".join(parts) + "\n"


def _line(row: Row, waits: bool) -> list[str]:
    """waits: there is a column for it."""

    def spread(of: Any) -> str:
        found = Spread.of([of(turn) for turn in row.turns])
        return f"{_short(found.median)} [{_short(found.min)}..{_short(found.max)}]" if found else NOTHING

    def gflops(turn: Turn) -> float:
        return row.flops_each * turn.per_second / 1e9

    return [
        f"{row.contender.name} ({_precision(row)})",
        spread(lambda turn: turn.per_second),
        spread(lambda turn: 1000 / turn.per_second),
        _short(row.flops_each / 1e9, digits=4),
        spread(gflops),
        _percent(_share(row)),
        *([_percent(_waiting(row))] if waits else []),
        f"{max(turn.peak_mb for turn in row.turns):.0f}",
    ]


def _short(value: float, digits: int = 3) -> str:
    """So many digits that count, and all those before the point."""
    return f"{value:.{digits}g}" if value < 10 ** (digits - 1) else f"{value:.0f}"


def _share(row: Row) -> Spread | None:
    """Of the FLOP/s of a large matrix product in the same precision and round."""
    return Spread.of([row.flops_each * turn.per_second / turn.product_flops for turn in row.turns])


def _waiting(row: Row) -> Spread | None:
    """Of the time, what was waited for data."""
    return Spread.of([turn.waited / turn.seconds for turn in row.turns])


def _percent(share: Spread | None) -> str:
    return f"{share.median:.0%} [{share.min:.0%}..{share.max:.0%}]" if share else NOTHING


def _precision(row: Row) -> str:
    names = {"float32": "fp32", "bfloat16": "bf16", "float16": "fp16"}
    return names[str(row.contender.dtype).removeprefix("torch.")]


def _plain(values: Sequence[float]) -> dict[str, float] | None:
    """Unrounded, as they may be far below 1."""
    spread = Spread.of(values)
    return asdict(spread) if spread else None
