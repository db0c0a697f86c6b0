"""What the bench says: the same figures as JSON, and as tables in Markdown for a page and for the terminal."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from refiner_ds.bench.contenders import BASELINE, PEERS
from refiner_ds.bench.goals import Outcome, Spread, outcomes, per_cpu_second, per_second, ratio
from refiner_ds.bench.race import Row

NOTHING = "-"


def as_json(rows: Sequence[Row], about: Mapping[str, Any]) -> dict[str, Any]:
    """All figures of every round, what they come to, and the goals.

    Args:
        about: what was run, where and when.
    """
    baseline = _baseline(rows)
    return {
        "about": dict(about),
        "rows": [_row_as_json(row, baseline) for row in rows],
        "goals": [_goal_as_json(outcome) for outcome in outcomes(rows)],
    }


def _row_as_json(row: Row, baseline: Row | None) -> dict[str, Any]:
    return {
        "name": row.contender.name,
        "state": row.state,
        "mb_per_sample": round(row.mb_per_sample, 4),
        "samples_per_cpu_second": spread_as_json(Spread.of([per_cpu_second(figures) for figures in row.rounds])),
        "samples_per_second": spread_as_json(Spread.of([per_second(figures) for figures in row.rounds])),
        "ratio_to_baseline": spread_as_json(ratio(row, baseline) if baseline and _reads(row) else None),
        "rounds": [asdict(figures) for figures in row.rounds],
    }


def _goal_as_json(outcome: Outcome) -> dict[str, Any]:
    goal = outcome.goal
    return {
        "goal": goal.text,
        "row": goal.row,
        "other": goal.other or None,
        "at_least": goal.least or None,
        "at_most_mb": goal.most_mb or None,
        "measured": spread_as_json(outcome.measured),
        "is_kept": outcome.is_kept,
    }


def spread_as_json(spread: Spread | None) -> dict[str, float] | None:
    """Its three values by name."""
    return {name: round(value, 4) for name, value in asdict(spread).items()} if spread else None


def as_markdown(rows: Sequence[Row], about: Mapping[str, Any]) -> str:
    """The page: how it was measured, loaders, packers, ours against each peer, goals."""
    loaders = [row for row in rows if _reads(row)]
    packers = [row for row in rows if not _reads(row)]
    parts = [
        f"`{about['command']}`\n\n{about['machine']}; {about['date']}; {about['what']}.",
        table(LOADER_HEAD, [_loader_line(row, _baseline(rows)) for row in loaders]) if loaders else "",
        table(PACKER_HEAD, [_packer_line(row) for row in packers]) if packers else "",
        _against_peers(loaders),
        table(("goal", "promised", "measured", "kept"), [_goal_line(outcome) for outcome in outcomes(rows)]),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


LOADER_HEAD = (
    *("loader", "samples per CPU-second", "ratio to the baseline", "samples/s", "worker MB", "first batch s"),
    *("MB per sample", "delivers"),
)


def _loader_line(row: Row, baseline: Row | None) -> list[str]:
    if not row.rounds or row.state != "measured":
        return [row.contender.name, row.state, *[NOTHING] * (len(LOADER_HEAD) - 2)]
    last = row.rounds[-1]
    return [
        row.contender.name,
        _middle(row, per_cpu_second),
        told(ratio(row, baseline)) if baseline else NOTHING,
        _middle(row, per_second),
        f"{max(figures.peak_mb for figures in row.rounds):.0f}",
        _middle(row, lambda figures: figures.first_batch_seconds),
        f"{row.mb_per_sample:.2f}",
        f"{'x'.join(map(str, last.shape))} {last.dtype}",
    ]


PACKER_HEAD = ("packer", "samples per CPU-second", "samples/s", "process MB")


def _packer_line(row: Row) -> list[str]:
    if not row.rounds or row.state != "measured":
        return [row.contender.name, row.state, NOTHING, NOTHING]
    peak = max(figures.peak_mb for figures in row.rounds)
    return [row.contender.name, _middle(row, per_cpu_second), _middle(row, per_second), f"{peak:.0f}"]


def _against_peers(rows: Sequence[Row]) -> str:
    """Ratios of samples per CPU-second: each of our rows to every row of a peer that was measured."""
    ours = [row for row in rows if row.contender.name.startswith("ours/") and row.rounds]
    theirs = [row for row in rows if row.contender.name.split("/")[0] in PEERS and row.rounds]
    if not ours or not theirs:
        return ""
    lines = [[other.contender.name, *(told(ratio(row, other)) for row in ours)] for other in theirs]
    return table(("ratio to", *(row.contender.name for row in ours)), lines)


def _goal_line(outcome: Outcome) -> list[str]:
    goal, measured = outcome.goal, outcome.measured
    promised = f"<= {goal.most_mb:.0f} MB" if goal.most_mb else f">= {goal.least:g}"
    kept = {True: "yes", False: "no", None: "not measured"}[outcome.is_kept]
    return [goal.text, promised, f"{measured.median:.0f} MB" if goal.most_mb and measured else told(measured), kept]


def _baseline(rows: Iterable[Row]) -> Row | None:
    return next((row for row in rows if row.contender.name == BASELINE and row.rounds), None)


def _reads(row: Row) -> bool:
    return row.contender.action == "read"


def _middle(row: Row, rate: Any) -> str:
    spread = Spread.of([rate(figures) for figures in row.rounds])
    assert spread
    return f"{spread.median:.3g}" if spread.median < 100 else f"{spread.median:.0f}"


def told(spread: Spread | None) -> str:
    """Median [min..max]."""
    return f"{spread.median:.2f} [{spread.min:.2f}..{spread.max:.2f}]" if spread else NOTHING


def table(head: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
    """A table in Markdown."""
    rows = [head, ["---"] * len(head), *lines]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)
