"""The rounds: every contender in a process of its own, one after the other, again and again."""

import shutil
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from refiner_ds.bench.contenders import DISTRIBUTIONS, OURS, Contender
from refiner_ds.bench.job import Figures, Job
from refiner_ds.bench.material import Material, megabytes_of
from refiner_ds.bench.process import RunFailed, run_process, versions
from refiner_ds.data.packing.crew import Tell

LAP = 64
"""Samples in the window of one lap, at most."""


@dataclass
class Row:
    """What came of a contender.

    Attributes:
        state: "measured", "not installed", or "failed: " and why.
        mb_per_sample: its storage.
        rounds: by round its figures; fewer where it failed.
    """

    contender: Contender
    state: str = "measured"
    mb_per_sample: float = 0.0
    rounds: list[Figures] = field(default_factory=list)


@dataclass(frozen=True)
class Course:
    """What is the same for all: samples that each is measured over in a round, workers, batch size, whose Python."""

    samples: int
    workers: int
    peers_python: str
    batch_size: int = 4

    @property
    def warm_up(self) -> int:
        """Batches until workers are as far ahead as they will be."""
        return 4 * self.workers

    @property
    def laps(self) -> int:
        """Windows that the samples are measured in, so that few have to be stored."""
        return -(-self.samples // LAP)

    @property
    def lap(self) -> int:
        """Samples in the window of one lap, in whole batches."""
        batches = -(-self.samples // (self.laps * self.batch_size))
        return batches * self.batch_size

    @property
    def needed(self) -> int:
        """Samples of the data set, so that no epoch ends in a window, nor where workers read ahead of it."""
        return self.lap + self.batch_size * (self.warm_up + 4 * self.workers + 2)


def race(contenders: Sequence[Contender], rounds: int, course: Course, material: Material, tell: Tell) -> list[Row]:
    """Measures every contender `rounds` times, in turn; every second round goes backwards."""
    rows = [Row(contender) for contender in contenders]
    installed = versions(course.peers_python, DISTRIBUTIONS.values())
    for done, row in enumerate(rows):
        tell("preparing", done, len(rows), 0)
        package = row.contender.package
        if package and installed[DISTRIBUTIONS[package]] is None:
            row.state = "not installed"
        else:
            with _telling(row):
                row.mb_per_sample = _prepared(row.contender, course, material)
    done, total = 0, rounds * len(rows)
    for number in range(rounds):
        for row in rows[:: -1 if number % 2 else 1]:
            if row.state == "measured":
                with _telling(row):
                    row.rounds.append(_run(row.contender, number, course, material))
            done += 1
            tell("measuring", done, total, 0)
    return rows


@contextmanager
def _telling(row: Row) -> Iterator[None]:
    """A run that fails in this block is told in the row, and the others go on."""
    try:
        yield
    except RunFailed as error:
        row.state = f"failed: {error}"


def _prepared(contender: Contender, course: Course, material: Material) -> float:
    """Makes what a loader reads; MB per sample of it."""
    if contender.action == "write":
        return 0.0
    if contender.module == OURS:
        size = megabytes_of(material.shards(contender.storage))
    elif contender.package is None:
        size = sum(path.stat().st_size for one in material.samples for path in one.files.values()) / 1e6
    else:
        folder = _folder_of(contender, material)
        if not folder.exists():
            folder.mkdir(parents=True)
            _start(contender, "write", 0, course, material, folder)
        size = megabytes_of(folder)
    return size / len(material.samples)


def _run(contender: Contender, number: int, course: Course, material: Material) -> Figures:
    if contender.action == "read":
        return _start(contender, "read", number, course, material, _folder_of(contender, material))
    folder = material.folder / "packed"
    try:
        if contender.package:
            folder.mkdir()
        return _start(contender, "write", number, course, material, folder)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _start(contender: Contender, action: str, number: int, course: Course, material: Material, folder: Path) -> Figures:
    """One process, which reads from `folder` or writes into it; `number` seeds it."""
    job = Job(
        sources=str(material.members(contender.storage)),
        folder=str(folder),
        transform=contender.transform,
        bucket=f"{material.bucket.key}:{material.bucket}",
        batch_size=course.batch_size,
        workers=contender.workers or course.workers,
        warm_up=course.warm_up,
        samples=course.lap,
        laps=course.laps,
        seed=number,
    )
    python = course.peers_python if contender.package else sys.executable
    return run_process(python, contender.module, action, job, material.folder)


def _folder_of(contender: Contender, material: Material) -> Path:
    if contender.module == OURS:
        return material.shards(contender.storage)
    return material.folder / contender.name.split("/")[0] / contender.storage.name
