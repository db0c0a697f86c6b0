"""The journal of a run: OUTPUT_DIR/metrics.jsonl, one JSON object a line. Training appends, and waits for nobody."""

import contextlib
import json
import math
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

FILE_NAME = "metrics.jsonl"
SETTINGS = "run.json"
PICTURE = "picture"
"""Key of a line that stands for a picture: its path within the run's folder."""
REFERENCE = "reference"
"""Key of a line that tells where something lies: [what it is, its path within the run's folder]."""


class Journal:
    """Appends to the journal of a run; each line is one write, so that a reader sees whole lines."""

    def __init__(self, folder: Path) -> None:
        self._file = (folder / FILE_NAME).open("a+b", buffering=0)
        self._unwritten = b""
        if self._file.tell() and not self._ends_whole():
            self._file.write(b"\n")  # after the half line of a run that was cut off

    def _ends_whole(self) -> bool:
        self._file.seek(-1, os.SEEK_END)
        return self._file.read(1) == b"\n"

    def metrics(self, step: int, values: dict[str, float]) -> None:
        """Metrics after `step` completed optimizer steps, in full precision; inf and nan as words, which JSON lacks."""
        finite = {name: value if math.isfinite(value) else str(value) for name, value in values.items()}
        self._write({"step": step, "time": time.time(), **finite})

    def picture(self, step: int, path: str) -> None:
        """A picture made after `step` completed optimizer steps, by its path within the run's folder."""
        self._write({"step": step, "time": time.time(), PICTURE: path})

    def reference(self, step: int, what: str, path: str) -> None:
        """Where what was made of `step` completed optimizer steps lies, by its path within the run's folder."""
        self._write({"step": step, "time": time.time(), REFERENCE: [what, path]})

    def close(self) -> int:
        """Closes the file; returns the number of lines for which the disk had no room to the end."""
        self._write_all()
        self._file.close()
        return self._unwritten.count(b"\n")

    def _write(self, line: dict[str, object]) -> None:
        self._unwritten += json.dumps(line).encode() + b"\n"
        self._write_all()

    def _write_all(self) -> None:
        """Writes all that is there; on a full disk it waits for the next line, and training for nothing."""
        with contextlib.suppress(OSError):
            while self._unwritten:
                self._unwritten = self._unwritten[self._file.write(self._unwritten) :]


@dataclass(frozen=True)
class Line:
    """Metrics by name that were told after `step` completed optimizer steps, at `at` seconds since 1970."""

    step: int
    at: float
    values: dict[str, float]


def read_lines(folder: Path) -> Iterator[Line]:
    """The lines of a run that hold metrics, as they were written."""
    path = folder / FILE_NAME
    for line in path.read_bytes().splitlines() if path.exists() else []:
        entry = read_line(line)
        if entry and not {PICTURE, REFERENCE} & entry.keys():
            step, at = entry.pop("step"), entry.pop("time")
            yield Line(step, at, {name: float(value) for name, value in entry.items()})


def read_metrics(folder: Path) -> dict[str, dict[int, float]]:
    """Every metric of a run by name and step; where a resumed run came by a step again, the later figure stands."""
    found: dict[str, dict[int, float]] = {}
    for line in read_lines(folder):
        for name, value in line.values.items():
            found.setdefault(name, {})[line.step] = value
    return found


def read_line(line: bytes) -> dict[str, Any] | None:
    """One line of the journal; None for the half line of a run that was cut off."""
    try:
        return json.loads(line)
    except ValueError:
        return None
