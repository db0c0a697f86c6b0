"""What a process of the bench is told and what it answers, as JSON files: knows no loader and no picture."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Job:
    """One run of one loader.

    Attributes:
        sources: JSON file with the samples, each by view where its picture lies: path, byte offset, bytes, kind.
        folder: where the loader keeps its own copy of them, or is to write it.
        transform: "recipe" as the baseline does it, else how the crop is cut: "exact" or "window".
        bucket: as --buckets spells it; all samples are of this one.
        warm_up: batches that are read before the clock starts.
        samples: how many are read while it runs, in each lap.
        laps: how often warm-up and window follow each other; of a data set with an end, each is in a pass of its own.
        seed: of order and crops.
    """

    sources: str
    folder: str
    transform: str
    bucket: str
    batch_size: int
    workers: int
    warm_up: int
    samples: int
    laps: int
    seed: int


@dataclass(frozen=True)
class Figures:
    """What one run measured.

    Attributes:
        samples: those that were really delivered while the clock ran.
        cpu_seconds, wall_seconds: of loader, workers and all other processes below, for these samples.
        peak_mb: most memory that one worker ever held, the loader's process where it has none.
        private_mb: what one worker holds at the end that it shares with nobody; 0 where nobody looked.
        first_batch_seconds: from opening the data to the first batch, imports left out.
        shape, dtype: of one view of a batch, (B, H, W, C) whatever the loader's layout.
    """

    samples: int
    cpu_seconds: float
    wall_seconds: float
    peak_mb: float
    private_mb: float = 0.0
    first_batch_seconds: float = 0.0
    shape: tuple[int, ...] = ()
    dtype: str = ""


def save(value: Any, path: Path) -> None:
    """Writes a job or figures."""
    path.write_text(json.dumps(asdict(value)), encoding="utf-8")


def load_job(path: Path) -> Job:
    """Reads what `save` wrote."""
    return Job(**json.loads(path.read_text(encoding="utf-8")))


def load_figures(path: Path) -> Figures:
    """Reads what `save` wrote."""
    found = json.loads(path.read_text(encoding="utf-8"))
    return Figures(**{**found, "shape": tuple(found["shape"])})
