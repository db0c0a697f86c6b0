"""Checking samples before they are packed: every picture is decoded once; what was found is kept for a later run."""

import hashlib
import json
import os
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

import google_crc32c

from refiner_ds.data.images import PictureError, decode, extension_of
from refiner_ds.data.index import KINDS
from refiner_ds.data.manifest import VIEWS, Sample

LARGEST = 2**32 - 1
"""Bytes of a picture; the index counts them in 32 bits."""


class Checked(NamedTuple):
    """A sample that can be used: pixels of its pictures, and by view byte count, crc32c and number in KINDS."""

    width: int
    height: int
    sizes: tuple[int, ...]
    crcs: tuple[int, ...]
    kinds: tuple[int, ...]


class Finding(NamedTuple):
    """What a look at a sample found: by view (bytes, mtime in ns) of its file, and what to pack or why not to."""

    times: tuple[tuple[int, int], ...]
    checked: Checked | None
    problem: str | None = None


def check(sample: Sample, known: Finding | None = None) -> Finding:
    """Decodes the three pictures of a sample and compares their sizes.

    Args:
        known: what an earlier look found; it stands for files that still have the same size and time.
    """
    try:
        times = tuple(_time_of(sample.files[view]) for view in VIEWS)
    except OSError:
        times = ()  # reading says which
    if known and known.times == times:
        return known
    try:
        return Finding(times, checked_of(lambda view: sample.files[view].read_bytes(), sample.sources))
    except PictureError as error:
        return Finding((), None, str(error))


def checked_of(read: Callable[[str], bytes], names: Mapping[str, str]) -> Checked:
    """Decodes the pictures of a sample, which `read` gets by view.

    Args:
        names: by view what messages call its picture.

    Raises:
        PictureError: one cannot be read or used, or their sizes differ; it begins with the picture's name.
    """
    shapes, found = {}, []
    for view in VIEWS:
        try:
            content = read(view)
            shapes[view] = decode(content).size
        except PictureError as error:
            raise PictureError(f"{names[view]} {error}") from error
        except OSError as error:
            raise PictureError(f"{names[view]} cannot be read ({error.strerror})") from error
        if len(content) > LARGEST:
            raise PictureError(f"{names[view]} has {len(content)} bytes, more than {LARGEST}")
        found.append((len(content), google_crc32c.value(content), KINDS.index(extension_of(content))))
    if len(set(shapes.values())) > 1:
        text = ", ".join(f"{view} {width}x{height}" for view, (width, height) in shapes.items())
        raise PictureError(f"{names['render']} and its partners differ in size ({text})")
    return Checked(*shapes["render"], *zip(*found, strict=True))


def check_all(jobs: list[tuple[Sample, Finding | None]]) -> list[Finding]:
    """`check` for several samples: one job for a process."""
    return [check(sample, known) for sample, known in jobs]


def _time_of(path: Path) -> tuple[int, int]:
    status = path.stat()
    return status.st_size, status.st_mtime_ns


class Findings:
    """A file of findings, to which each is added as it is made; of a line that a kill cut short nothing is taken."""

    def __init__(self, path: Path):
        self._known: dict[str, Finding] = {}
        if path.exists():
            for line in path.read_text(encoding="utf-8").splitlines():
                self._take(line)
        self._file = path.open("a", encoding="utf-8")
        self._file.write("\n")  # ends what a kill cut short

    def __enter__(self) -> "Findings":
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def _take(self, line: str) -> None:
        try:
            name, times, numbers = json.loads(line)
            width, height, *lists = numbers
            checked = Checked(width, height, *map(tuple, lists))
            self._known[name] = Finding(tuple((size, time) for size, time in times), checked)
        except (TypeError, ValueError):
            return

    def of(self, sample: Sample) -> Finding | None:
        """What is known of a sample's files."""
        return self._known.get(_name_of(sample))

    def add(self, samples: Iterable[Sample], findings: Iterable[Finding]) -> None:
        """Adds what was found; problems are not kept, as rights may change without the file's time."""
        for sample, finding in zip(samples, findings, strict=True):
            name = _name_of(sample)
            if finding.checked and self._known.get(name) != finding:
                self._file.write(json.dumps([name, finding.times, finding.checked], separators=(",", ":")) + "\n")
        self._file.flush()


def _name_of(sample: Sample) -> str:
    paths = "\0".join(os.path.abspath(sample.files[view]) for view in VIEWS)
    return hashlib.blake2b(os.fsencode(paths), digest_size=12).hexdigest()
