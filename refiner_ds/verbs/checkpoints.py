"""`refiner-ds checkpoints`: what lies in a run's output folder, and which of it can be continued and exported."""

import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

from refiner_ds.checkpoint.layout import damage
from refiner_ds.checkpoint.listing import NAME, Entry, entries
from refiner_ds.config.verbs.models import Checkpoints
from refiner_ds.errors import UserError
from refiner_ds.tracking.journal import SETTINGS, read_metrics
from refiner_ds.train.best import best_steps
from refiner_ds.train.lock import is_held
from refiner_ds.units import size_text, time_text
from refiner_ds.verbs.answer import answer, require_answerable
from refiner_ds.verbs.progress import progress_bar

METRICS = ("val/psnr", "val/ssim")
FACTS = ("images_seen", "num_ranks", "stage", "precision", "optimizer", "use_ema", "elsewhere")
"""What the JSON tells of a commit."""
HEAD = ("step", "size", "age", "images seen", "PSNR", "SSIM", "ranks", "state")
NOTHING = "-"
PLAIN_WIDTH = 10_000
"""Columns of what is no terminal, so that no line is folded."""


@dataclass(frozen=True)
class Listed:
    """An entry beside what the rest of the run tells of it.

    Attributes:
        metrics: of its step, as far as it was validated.
        marks: "newest" for the one that resume takes first, "best" by the metric by which the run keeps the best, told
            where that is not PSNR.
        damage: how it differs from what was written, in words; empty where nobody has read it.
    """

    entry: Entry
    metrics: dict[str, float]
    marks: tuple[str, ...] = ()
    damage: str = ""

    @property
    def is_faulty(self) -> bool:
        """It has a checkpoint's name, and its content is not what was written."""
        return self.entry.state == "incomplete" or bool(self.damage)


def run(options: Checkpoints) -> int:
    """0; with --verify 1 where anything that has a checkpoint's name is not what was written."""
    require_answerable(options.json)
    is_running = is_held(options.run)
    found = listed(options.run, options.verify)
    content = {"run": str(options.run), "is_running": is_running, "checkpoints": [*map(_as_json, found)]}
    answer(_as_table(found, is_running) if found else f"{options.run} has no checkpoint yet", content, options.json)
    return int(options.verify and any(each.is_faulty for each in found))


def listed(folder: Path, is_read: bool) -> list[Listed]:
    """Everything in a run's folder, by step.

    Args:
        is_read: every byte of the complete ones is read and compared.

    Raises:
        UserError: the folder holds no run.
    """
    found, figures = _require_run(folder), read_metrics(folder)
    complete = [entry for entry in found if entry.state == "complete"]
    faults = dict(_damage(complete)) if is_read else {}
    whole = [entry for entry in complete if not faults.get(entry.path)]
    newest = max(whole, key=lambda entry: entry.commit["number"], default=None)
    metric, steps = _best_metric(newest), {entry.step for entry in whole}
    shown = dict.fromkeys((*METRICS, metric))
    best = best_steps({step: value for step, value in figures.get(metric, {}).items() if step in steps}, metric)
    return [
        Listed(
            entry,
            {name: figures[name][entry.step] for name in shown if entry.step in figures.get(name, {})},
            ("newest",) * (entry is newest) + _best_mark(metric) * (entry in whole and entry.step in best),
            faults.get(entry.path, ""),
        )
        for entry in found
    ]


def _require_run(folder: Path) -> list[Entry]:
    if NAME.fullmatch(folder.resolve().name):
        raise UserError(
            f"{folder} is one checkpoint and no run, so there is nothing to list in it; name the --output_dir of its "
            f"run, {folder.resolve().parent}."
        )
    try:
        found = entries(folder)
    except OSError as error:
        raise UserError(
            f"{folder} cannot be read ({error.strerror}), so nothing tells its checkpoints; name the --output_dir of a "
            "run."
        ) from error
    if not found and not (folder / SETTINGS).exists():
        raise UserError(
            f"{folder} holds no run ({SETTINGS} is not there), so there are no checkpoints to list; name the "
            "--output_dir of a run."
        )
    return found


def _best_metric(newest: Entry | None) -> str:
    """The metric by which the run was last told to keep the best."""
    settings = newest.commit.get("settings", {}) if newest else {}
    return f"val/{settings.get('train', {}).get('best_metric', 'psnr')}"


def _best_mark(metric: str) -> tuple[str]:
    """With the metric, where that is not the first one of the columns."""
    if metric == METRICS[0]:
        return ("best",)
    return (f"best by {metric}",)


def _damage(complete: Sequence[Entry]) -> Iterator[tuple[Path, str]]:
    """Reads every file of complete checkpoints; tells for each how it differs from what was written."""
    total, done, size = sum(len(entry.commit["files"]) for entry in complete), 0, 0
    with progress_bar() as tell:
        for entry in complete:
            faults: list[str] = []
            for name, (nbytes, _) in entry.commit["files"].items():
                assert entry.checkpoint
                faults += damage(entry.checkpoint, [name])
                done, size = done + 1, size + nbytes
                tell("reading", done, total, size)
            yield entry.path, "; ".join(faults)


def _as_json(each: Listed) -> dict[str, Any]:
    entry = each.entry
    return {
        "name": entry.path.name,
        "step": entry.step,
        "bytes": entry.nbytes,
        "written": entry.written,
        "state": "damaged" if each.damage else entry.state,
        "is_newest": "newest" in each.marks,
        "is_best": any(mark.startswith("best") for mark in each.marks),
        "fault": each.damage or entry.fault,
        **each.metrics,
        **{name: entry.commit[name] for name in FACTS if name in entry.commit},
    }


def _as_table(found: Iterable[Listed], is_running: bool) -> str:
    """Framed and in colours on a terminal, plain columns elsewhere."""
    console = Console(highlight=False, markup=False, emoji=False)
    if is_plain := not console.is_terminal:
        console.width = PLAIN_WIDTH
    table = Table(*HEAD, box=None if is_plain else box.SIMPLE_HEAD, pad_edge=False)
    for column in table.columns[:-1]:
        column.justify, column.no_wrap = "right", True
    now = time.time()
    for each in found:
        colour = "red" if each.is_faulty else "green" if each.marks else None
        table.add_row(*_row(each, is_running, now), style=colour)
    with console.capture() as captured:
        console.print(table)
    return "\n".join(line.rstrip() for line in captured.get().splitlines())


def _row(each: Listed, is_running: bool, now: float) -> Iterator[str]:
    entry, commit = each.entry, each.entry.commit
    yield str(entry.step)
    yield size_text(entry.nbytes)
    yield time_text(now - entry.written)
    yield f"{commit['images_seen']:,}" if "images_seen" in commit else NOTHING
    for name, digits in zip(METRICS, (2, 4), strict=True):
        yield f"{each.metrics[name]:.{digits}f}" if name in each.metrics else NOTHING
    known = {"num_ranks", "precision", "stage"} <= commit.keys()
    yield f"{commit['num_ranks']} x {commit['precision']} ZeRO-{commit['stage']}" if known else NOTHING
    yield _state_text(each, is_running)


def _state_text(each: Listed, is_running: bool) -> str:
    """What it is, and what becomes of it where nobody works on it."""
    entry = each.entry
    if each.damage or entry.fault:
        return f"{'damaged' if each.damage else entry.state}: {each.damage or entry.fault}"
    if entry.state == "complete":
        others = [f"{name} {value:.4g}" for name, value in each.metrics.items() if name not in METRICS]
        elsewhere = entry.commit.get("elsewhere") or {}
        away = f"; {', '.join(elsewhere)} on {', '.join(dict.fromkeys(elsewhere.values()))}" if elsewhere else ""
        return ", ".join((entry.state, *each.marks, *others)) + away
    if entry.state == "set aside":
        return f"set aside as {entry.path.name}: not used, and deleted by nobody"
    if is_running:
        return entry.state
    if entry.state == "being deleted":
        return "half deleted; the next start deletes the rest"
    if entry.checkpoint:
        return "complete but for its name; the next start gives it"
    return "half written; the next start deletes it"
