"""What we promise of the data path, and whether the figures keep it."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median

from refiner_ds.bench.job import Figures
from refiner_ds.bench.race import Row


def per_cpu_second(figures: Figures) -> float:
    """Samples per CPU-second."""
    return figures.samples / max(figures.cpu_seconds, 1e-9)


def per_second(figures: Figures) -> float:
    """Samples per second by the clock on the wall."""
    return figures.samples / max(figures.wall_seconds, 1e-9)


@dataclass(frozen=True)
class Spread:
    """Several values of one figure."""

    median: float
    min: float
    max: float

    @classmethod
    def of(cls, values: Sequence[float]) -> "Spread | None":
        """None of no values."""
        return cls(median(values), min(values), max(values)) if values else None


def ratio(row: Row, other: Row, rate: Callable[[Figures], float] = per_cpu_second) -> Spread | None:
    """How much faster a row is than another one, compared within each round that both have."""
    return Spread.of([rate(ours) / rate(theirs) for ours, theirs in zip(row.rounds, other.rounds, strict=False)])


@dataclass(frozen=True)
class Goal:
    """A promise: the median of row / other is at least `least`, or the row's memory at most `most_mb`."""

    text: str
    row: str
    other: str = ""
    least: float = 0.0
    most_mb: float = 0.0
    rate: Callable[[Figures], float] = per_cpu_second


GOALS = (
    Goal("PNG bytes kept, window, against the baseline", "ours/kept/window", "baseline", 2.0),
    Goal("lossless recode at kept size, window, against the baseline", "ours/tiff/window", "baseline", 4.5),
    Goal("lossless recode at bucket size, against the baseline", "ours/tiff-bucket", "baseline", 15.0),
    Goal("raw pixels at bucket size, against the baseline", "ours/npy-bucket", "baseline", 40.0),
    Goal("encoded pictures, latent crops, against the baseline", "ours/encoded/latent", "baseline", 100.0),
    Goal("encoded pictures, windows, against the baseline", "ours/encoded/windows", "baseline", 100.0),
    Goal("loader alone, TIFF, against litdata", "ours/tiff-bucket", "litdata/tiff-bucket", 1.25),
    Goal("loader alone, TIFF, against MosaicML", "ours/tiff-bucket", "mosaicml/tiff-bucket", 1.5),
    Goal("loader alone, TIFF, against webdataset", "ours/tiff-bucket", "webdataset/tiff-bucket", 1.5),
    Goal("loader alone, raw, against litdata", "ours/npy-bucket", "litdata/npy-bucket", 1.5),
    Goal("loader alone, raw, against MosaicML", "ours/npy-bucket", "mosaicml/npy-bucket", 2.3),
    Goal("loader alone, raw, against webdataset", "ours/npy-bucket", "webdataset/npy-bucket", 3.0),
    Goal("memory of a worker, PNG", "ours/kept/window", most_mb=250),
    Goal("memory of a worker, TIFF", "ours/tiff-bucket", most_mb=250),
    Goal("memory of a worker, raw", "ours/npy-bucket", most_mb=250),
    Goal("packing with 2 workers, against 1, by the clock", "packing/ours/2", "packing/ours/1", 1.7, rate=per_second),
    Goal("packing, writing and hashing, against ShardWriter", "packing/ours/writing", "packing/webdataset", 1.0),
)
"""All of them; ratios are of samples per CPU-second unless the text says otherwise."""


@dataclass(frozen=True)
class Outcome:
    """A goal, what was measured, and whether that keeps it; None where its rows were not measured."""

    goal: Goal
    measured: Spread | None

    @property
    def is_kept(self) -> bool | None:
        """Whether the median keeps it."""
        if self.measured is None:
            return None
        if self.goal.most_mb:
            return self.measured.median <= self.goal.most_mb
        return self.measured.median >= self.goal.least


def outcomes(rows: Sequence[Row]) -> list[Outcome]:
    """Every goal with what was measured for it."""
    by_name = {row.contender.name: row for row in rows}
    return [Outcome(goal, _measured(goal, by_name)) for goal in GOALS]


def _measured(goal: Goal, rows: Mapping[str, Row]) -> Spread | None:
    if goal.row not in rows or (goal.other and goal.other not in rows):
        return None
    if goal.most_mb:
        return Spread.of([figures.peak_mb for figures in rows[goal.row].rounds])
    return ratio(rows[goal.row], rows[goal.other], goal.rate)
