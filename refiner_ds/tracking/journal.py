"""The journal of a run: OUTPUT_DIR/metrics.jsonl, one JSON object a line. Training appends, and waits for nobody."""

import json
import time
from pathlib import Path

FILE_NAME = "metrics.jsonl"
SETTINGS = "run.json"
FINISHED = "finished.json"
PICTURE = "picture"
"""Key of a line that stands for a picture: its path within the run's folder."""


class Journal:
    """Appends to the journal of a run; each line is one write, so that a reader sees whole lines."""

    def __init__(self, folder: Path) -> None:
        self._file = (folder / FILE_NAME).open("a", encoding="utf-8", buffering=1)

    def metrics(self, step: int, values: dict[str, float]) -> None:
        """Metrics after `step` completed optimizer steps, in full precision."""
        self._write({"step": step, "time": time.time(), **values})

    def picture(self, step: int, path: str) -> None:
        """A picture made after `step` completed optimizer steps, by its path within the run's folder."""
        self._write({"step": step, "time": time.time(), PICTURE: path})

    def _write(self, line: dict[str, object]) -> None:
        self._file.write(json.dumps(line) + "\n")


def read_metrics(folder: Path) -> dict[str, dict[int, float]]:
    """Every metric of a run by name and step; where a resumed run came by a step again, the later figure stands."""
    found: dict[str, dict[int, float]] = {}
    path = folder / FILE_NAME
    for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else []:
        entry = json.loads(line)
        for name, value in entry.items():
            if name not in ("step", "time", PICTURE):
                found.setdefault(name, {})[entry["step"]] = value
    return found
