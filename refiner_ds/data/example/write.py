"""Writes the example to a folder: pictures first, from one or more processes, and the manifest last."""

import json
import multiprocessing
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from PIL import Image

from refiner_ds.data.example.frames import SHAPES, check_request, draw_frame, frame_name
from refiner_ds.errors import UserError
from refiner_ds.folders import require_folder

ROLES = ("render", "gt", "cond")
_THREAD_SETTINGS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "VECLIB_MAXIMUM_THREADS")
_Job = tuple[str, int, tuple[int, int], int, float]


def write_example(
    out: Path,
    frames: int,
    shapes: Sequence[tuple[int, int]] = SHAPES,
    seed: int = 0,
    baseline: float = 0.6,
    streets: int = 1,
    workers: int = 1,
    progress: Callable[[int, int], None] | None = None,
) -> Path:
    """Writes OUT/{render,gt,cond}/NAME.png and, last and atomically, OUT/manifest.json; returns the manifest's path.

    The manifest holds three aligned lists, "render", "gt" and "cond", of paths relative to OUT. `frames`, `shapes`,
    `seed` and `baseline` are those of `draw_frames`; with several `streets`, as many frames of the streets of the next
    seeds follow. `workers` processes draw; the files don't depend on their number. `progress` is called with (frames
    written, frames of all streets) after each. The same call on a finished folder writes nothing.

    Raises UserError for what `draw_frames` refuses, for streets or workers below 1, and for a folder that cannot be
    made or holds another example.
    """
    check_request(frames, shapes, seed, baseline)
    if workers < 1:
        raise UserError(f"workers is {workers}, so that nobody would draw: give 1 or more.")
    if streets < 1:
        raise UserError(f"streets is {streets}, so that nothing would be drawn: give 1 or more.")
    places = [
        (street, index, shapes[index % len(shapes)])
        for street in range(seed, seed + streets)
        for index in range(frames)
    ]
    names = [frame_name(index, shape, street) for street, index, shape in places]
    manifest = {role: [f"{role}/{name}.png" for name in names] for role in ROLES}
    settings = {"shapes": [list(shape) for shape in shapes], "seed": seed, "baseline": baseline}
    out = Path(out)
    require_folder(out)
    path = out / "manifest.json"
    if _already_there(out, path, manifest, settings):
        return path
    for role in ROLES:
        (out / role).mkdir(parents=True, exist_ok=True)
    jobs = [(str(out), index, shape, street, baseline) for street, index, shape in places]
    for done, _ in enumerate(_run(jobs, min(workers, len(jobs))), start=1):
        if progress is not None:
            progress(done, len(jobs))
    _write_text(out / "example.json", json.dumps(settings))
    _write_text(path, json.dumps(manifest, indent=1))
    return path


def _already_there(out: Path, path: Path, manifest: dict[str, list[str]], settings: dict[str, object]) -> bool:
    """Whether OUT holds this very example, whole. Takes the manifest away where pictures of it are missing."""
    if not path.exists():
        return False
    try:
        same = json.loads(path.read_text()) == manifest
        same = same and json.loads((out / "example.json").read_text()) == settings
    except (OSError, ValueError):
        same = False
    if not same:
        raise UserError(
            f"out is {out}, whose manifest.json belongs to other pictures, which would be mixed with these: "
            "name another folder, or delete that one."
        )
    if all((out / entry).exists() for entries in manifest.values() for entry in entries):
        return True
    path.unlink()
    return False


def _run(jobs: Sequence[_Job], workers: int) -> Iterator[None]:
    """Draws and writes every job, here or in `workers` processes, and yields once for each that is done."""
    if workers == 1:
        yield from map(_write_frame, jobs)
        return
    with _one_thread_each(), multiprocessing.get_context("spawn").Pool(workers) as pool:
        yield from pool.imap_unordered(_write_frame, jobs)


@contextmanager
def _one_thread_each() -> Iterator[None]:
    """Lets processes started meanwhile use one thread each, through the settings that numpy reads when it is loaded."""
    before = {name: os.environ.get(name) for name in _THREAD_SETTINGS}
    os.environ.update(dict.fromkeys(_THREAD_SETTINGS, "1"))
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def _write_frame(job: _Job) -> None:
    out, index, shape, seed, baseline = job
    frame = draw_frame(index, shape, seed, baseline)
    for role, pixels in zip(ROLES, (frame.render, frame.gt, frame.cond), strict=True):
        path = Path(out) / role / f"{frame.name}.png"
        partial = path.with_suffix(".partial")
        Image.fromarray(pixels).save(partial, format="PNG", compress_level=4)
        os.replace(partial, path)


def _write_text(path: Path, text: str) -> None:
    """Writes `path` under another name first, so that nobody finds it half-written."""
    partial = path.with_suffix(".partial")
    partial.write_text(text)
    os.replace(partial, path)
