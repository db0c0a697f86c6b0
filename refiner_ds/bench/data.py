"""The bench of the data path: material, rounds, figures."""

import os
import platform
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import date
from pathlib import Path
from typing import Any

from refiner_ds.bench.contenders import DISTRIBUTIONS, Contender
from refiner_ds.bench.material import Material, of_one_bucket
from refiner_ds.bench.pictures import HEIGHT, WIDTH, write_triplets
from refiner_ds.bench.process import versions
from refiner_ds.bench.race import Course, Row, race
from refiner_ds.data.buckets import Bucket
from refiner_ds.data.manifest import read_dataset
from refiner_ds.data.packing.crew import Tell
from refiner_ds.errors import UserError
from refiner_ds.folders import require_free


def bench_data(
    contenders: Sequence[Contender],
    rounds: int,
    course: Course,
    buckets: Sequence[Bucket],
    manifest: Path | None,
    output: Path | None,
    tell: Tell,
) -> tuple[list[Row], dict[str, Any]]:
    """Measures the contenders, and tells on what, where and when.

    Args:
        manifest: of the pictures; synthetic ones where it is None.
        output: where everything that is made stays; nothing stays where it is None.

    Raises:
        UserError: the numbers leave nothing to measure, or the pictures, folder or interpreter cannot be used.
    """
    if min(rounds, course.samples, course.workers) < 1:
        raise UserError(
            f"--rounds {rounds}, --samples {course.samples} and --workers {course.workers} must be at least 1; "
            "else nothing is measured."
        )
    installed = versions(course.peers_python, DISTRIBUTIONS.values())
    with _folder(output) as folder:
        pictures = write_triplets(folder / "pictures", tell) if manifest is None else read_dataset(manifest)
        samples, bucket = of_one_bucket(pictures, buckets)
        material = Material(folder, samples, course.needed, bucket, tell)
        rows = race(contenders, rounds, course, material, tell)
    kind = f"synthetic triplets of {WIDTH}x{HEIGHT}" if manifest is None else "own triplets"
    what = (
        f"{len(samples)} {kind}, bucket {bucket}, batch {course.batch_size}, workers {course.workers}, "
        f"{course.laps * course.lap} samples a round, median [min..max] over rounds: {rounds}"
    )
    about = {
        "what": what,
        "machine": f"{len(os.sched_getaffinity(0))} CPU cores ({platform.machine()}), no GPU used",
        "date": date.today().isoformat(),
        "rounds": rounds,
        "samples": course.samples,
        "workers": course.workers,
        "batch_size": course.batch_size,
        "versions_of_peers": installed,
    }
    return rows, about


@contextmanager
def _folder(output: Path | None) -> Iterator[Path]:
    """Yields the absolute path of an empty folder."""
    if output is None:
        with tempfile.TemporaryDirectory(prefix="refiner-ds-bench-") as folder:
            yield Path(folder).resolve()
        return
    require_free(output, "the bench would mix its files with them")
    output.mkdir(parents=True, exist_ok=True)
    yield output.resolve()
