"""The main function of a process of the bench: measures one run of the loader, or of the writer, that it is given."""

import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from torch import Tensor

from refiner_ds.bench.job import Figures, Job, load_job, save
from refiner_ds.bench.measure import cpu_seconds, peak_megabytes, private_megabytes

Start = Callable[[], Iterator[Tensor]]
"""Starts a lap: batches of one view that go on after warm-up and window; all views are loaded."""
CHANNELS = (3, 4)
"""Of pictures, and of latents."""
Read = Callable[[Job], Start]
"""Opens the data of a job."""
Write = Callable[[Job], int]
"""Writes the samples of a job into its folder and returns how many."""


def main(read: Read, write: Write | None = None) -> None:
    """Does `read JOB FIGURES` or `write JOB FIGURES`, as the command line says."""
    action, job_path, figures_path = sys.argv[1:]
    job = load_job(Path(job_path))
    if action == "read":
        figures = measured_reading(read, job)
    else:
        assert write is not None, "this loader reads what another one wrote"
        figures = measured_writing(write, job)
    save(figures, Path(figures_path))


def measured_reading(read: Read, job: Job) -> Figures:
    """Measures the windows of all laps together, after each of which the loader could still go on.

    So workers that read ahead are as far ahead at the end of a window as at its start.
    """
    opened = time.monotonic()
    start, first_batch_seconds = read(job), 0.0
    samples, cpu, wall = 0, 0.0, 0.0
    for lap in range(job.laps):
        batches = start()
        pictures = next(batches)
        first_batch_seconds = first_batch_seconds or time.monotonic() - opened
        for _ in range(job.warm_up - 1):
            next(batches)
        cpu, wall = cpu - cpu_seconds(), wall - time.monotonic()
        while samples < (lap + 1) * job.samples:
            pictures = next(batches)
            samples += len(pictures)
        cpu, wall = cpu + cpu_seconds(), wall + time.monotonic()
    shape, dtype = _shape_of(pictures), str(pictures.dtype).removeprefix("torch.")
    return Figures(samples, cpu, wall, peak_megabytes(), private_megabytes(), first_batch_seconds, shape, dtype)


def measured_writing(write: Write, job: Job) -> Figures:
    """Measures the whole of writing."""
    cpu, wall = cpu_seconds(), time.monotonic()
    samples = write(job)
    cpu, wall = cpu_seconds() - cpu, time.monotonic() - wall
    return Figures(samples, cpu, wall, peak_megabytes(), private_megabytes())


def _shape_of(pictures: Tensor) -> tuple[int, ...]:
    shape = tuple(pictures.shape)
    return (shape[0], *shape[2:], shape[1]) if shape[1] in CHANNELS else shape
