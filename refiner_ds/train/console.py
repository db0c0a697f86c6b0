"""What a person sees of a run: a header, one live line (or a line every few seconds where there is no terminal), what
happens, and a summary; or for a machine the same as JSON, one object a line."""

import json
import math
import sys
import time
from collections.abc import Iterable, Mapping
from typing import Any

from rich.console import Console as Rich
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from refiner_ds.units import time_text

SECONDS_BETWEEN_LINES = 10.0


class Console:
    """Speaks on rank 0 only; every other rank gets a silent one.

    Args:
        as_json: each line is an object with `event` ("header", "step", "validation" or "message"), `time` in seconds
            since 1970, and what belongs to it.
    """

    def __init__(self, speaks: bool, first_step: int, last_step: int, as_json: bool = False) -> None:
        self._writes_json = speaks and as_json
        self._rich = Rich(quiet=not speaks or as_json, highlight=False, soft_wrap=True)
        self._progress = Progress(
            TextColumn("step"),
            MofNCompleteColumn(),
            BarColumn(),
            TextColumn("{task.fields[figures]}"),
            TimeRemainingColumn(),
            console=self._rich,
            disable=not (speaks and self._rich.is_terminal) or as_json,
        )
        self._task = self._progress.add_task("train", total=last_step, completed=first_step, figures="")
        self._first, self._last = first_step, last_step
        self._started = self._said = time.monotonic()

    def start(self) -> None:
        """Starts the clock of the time left, and the live line."""
        self._started = time.monotonic()
        self._progress.start()

    def stop(self) -> None:
        """Ends the live line."""
        self._progress.stop()

    def header(self, title: str, rows: Mapping[str, str]) -> None:
        """What is about to be done, by what it is about."""
        self._write("header", {"title": title, **rows})
        self._rich.print(title, markup=False)
        for name, text in rows.items():
            self._rich.print(f"  {name:<9} {text}", markup=False)

    def say(self, text: str) -> None:
        """A line that stays."""
        self._write("message", {"text": text})
        self._rich.print(text, markup=False)

    def validation(self, step: int, metrics: Mapping[str, float], lines: Iterable[str]) -> None:
        """The figures of a validation, and for a person the lines of its table."""
        self._write("validation", {"step": step, **metrics})
        for line in (f"validation at step {step}", *(f"  {line}" for line in lines)):
            self._rich.print(line, markup=False)

    def step(self, step: int, metrics: dict[str, float], slowest: str) -> None:
        """The figures of a completed step: loss, learning rate, samples per second; of the ranks at a reading.

        Args:
            slowest: the slowest rank in words, empty unless it stands out.
        """
        self._write("step", {"step": step, "last_step": self._last, **metrics, "slowest": slowest})
        rate = metrics["train/pairs_per_s"]
        figures = f"loss {metrics['train/loss']:.4f}  lr {metrics['train/lr']:.2e}  {rate:.2f} samples/s"
        is_read = "train/mfu" in metrics  # the last step of a reading, which comes at once
        if is_read:
            figures += f"  {_of_ranks(metrics)}" + (f"  {slowest}" if slowest else "")
        self._progress.update(self._task, completed=step, figures=figures)
        now = time.monotonic()
        if is_read and not self._rich.is_terminal and (now - self._said > SECONDS_BETWEEN_LINES or step == self._last):
            left = (now - self._started) / max(1, step - self._first) * (self._last - step)
            self._rich.print(f"step {step}/{self._last}  {figures}  {time_text(left)} left", markup=False)
            self._said = now

    def _write(self, event: str, content: Mapping[str, Any]) -> None:
        if self._writes_json:
            told = {name: _plain(value) for name, value in content.items()}
            print(json.dumps({"event": event, "time": time.time(), **told}), file=sys.stdout, flush=True)


def _plain(value: Any) -> Any:
    """inf and nan as words, which JSON lacks."""
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


def _of_ranks(metrics: dict[str, float]) -> str:
    """Terse: a device's arithmetic and its share of the peak, the time spent waiting for data, memory."""
    speed = f"{metrics['train/tflops']:.3g} TFLOP/s ({metrics['train/mfu']:.0%} of peak)"
    return f"{speed}  data wait {metrics['train/data_wait']:.0%}  {metrics['train/memory_gb']:.1f} GB"
