"""Our packer as a process of the bench, over the files that the peers' writers get too."""

import json
import sys
import time
from pathlib import Path

from refiner_ds.bench.job import Figures, Job, load_job, save
from refiner_ds.bench.measure import cpu_seconds, peak_megabytes_of_ended
from refiner_ds.bench.storage import KEPT, write_shards
from refiner_ds.data.buckets import parse_buckets
from refiner_ds.data.manifest import Sample


def main() -> None:
    """Does `write JOB FIGURES`, as the command line says."""
    _, job_path, figures_path = sys.argv[1:]
    save(measured(load_job(Path(job_path))), Path(figures_path))


def measured(job: Job) -> Figures:
    """Packs the samples of a job into its folder.

    With the transform "writing" the clock starts once all pictures are decoded and checked: the work that others do.
    """
    (bucket,) = parse_buckets(job.bucket)
    samples = _samples_of(job)
    start = (cpu_seconds(), time.monotonic())

    def tell(what: str, done: int, total: int, _size: int) -> None:
        nonlocal start
        if job.transform == "writing" and what == "checking" and done == total:
            start = cpu_seconds(), time.monotonic()

    write_shards(samples, Path(job.folder), KEPT, bucket, job.workers, tell)
    cpu, wall = cpu_seconds() - start[0], time.monotonic() - start[1]
    return Figures(len(samples), cpu, wall, peak_megabytes_of_ended())


def _samples_of(job: Job) -> list[Sample]:
    listed = json.loads(Path(job.sources).read_text(encoding="utf-8"))
    named = [{view: path for view, (path, *_) in sample.items()} for sample in listed]
    return [Sample({view: Path(path) for view, path in names.items()}, names) for names in named]


if __name__ == "__main__":
    main()
