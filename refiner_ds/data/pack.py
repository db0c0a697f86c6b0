"""Packing: a manifest becomes WebDataset tars, picture bytes untouched, in the same bytes whatever the worker count."""

import hashlib
import io
import json
import multiprocessing
import os
import tarfile
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from refiner_ds.data.images import PictureError, decode, extension_of
from refiner_ds.data.index import Entry, Index, Shard, write_index
from refiner_ds.data.manifest import VIEWS, Sample
from refiner_ds.errors import UserError
from refiner_ds.folders import made_whole, require_free

BLOCK = 512
"""Tar pads every member to this many bytes."""


@dataclass(frozen=True)
class _Checked:
    """What one look at a sample found: its size in pixels and its bytes on disk, or the sentence that refuses it."""

    width: int = 0
    height: int = 0
    bytes: int = 0
    problem: str | None = None


@dataclass(frozen=True)
class _Job:
    """One shard to write: everything that its bytes depend on."""

    folder: Path
    name: str
    split: str
    samples: tuple[tuple[str, Sample, _Checked], ...]


def pack(
    samples: list[Sample],
    out: Path,
    val: int,
    shard_size: int,
    workers: int,
    progress: Callable[[str, int, int], None] | None = None,
) -> Index:
    """Checks every picture, then writes train and validation shards and, last, the index; all or nothing appears.

    Args:
        val: the last `val` samples are held out.
        shard_size: bytes after which a new shard starts.
        progress: told (what, done, total) as the work goes on.

    Raises:
        UserError: no training sample would be left, the folder is taken, or pictures cannot be used (all counted).
    """
    if val < 0:
        raise UserError(f"--val {val} is no number of samples to hold out; give 0 to hold out none, or more.")
    if val >= len(samples):
        raise UserError(
            f"--val {val} of {len(samples)} samples leaves no training sample; hold out fewer than {len(samples)}."
        )
    if shard_size < 1 or workers < 1:
        raise UserError(
            f"--shard_size {shard_size} and --workers {workers} must be at least 1; otherwise nothing is written."
        )
    require_free(out, "packing would mix two data sets")
    tell = progress or (lambda what, done, total: None)
    with _pool(workers) as pool:
        checked = []
        for found in pool.map(_check, samples, chunksize=4):
            checked.append(found)
            tell("checking", len(checked), len(samples))
    _refuse_problems(checked)
    # a pool of its own: it has ended before a scratch folder that it writes into is taken away
    with made_whole(out) as scratch, _pool(workers) as pool:
        shards: list[Shard] = []
        for shard in pool.map(_write, _plan(samples, checked, val, shard_size, scratch)):
            shards.append(shard)
            tell("writing", sum(len(s.samples) for s in shards), len(samples))
        index = Index(tuple(shards))
        write_index(index, scratch)
    return index


def _pool(workers: int) -> ProcessPoolExecutor:
    return ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn"))


def _check(sample: Sample) -> _Checked:
    """Decodes the three pictures of a sample and compares their sizes."""
    sizes, count = {}, 0
    for view in VIEWS:
        try:
            content = sample.files[view].read_bytes()
            sizes[view] = decode(content).size
        except PictureError as error:
            return _Checked(problem=f"{sample.sources[view]} {error}")
        except OSError as error:
            return _Checked(problem=f"{sample.sources[view]} cannot be read ({error.strerror})")
        count += len(content)
    if len(set(sizes.values())) > 1:
        text = ", ".join(f"{view} {width}x{height}" for view, (width, height) in sizes.items())
        return _Checked(problem=f"{sample.sources['render']} and its partners differ in size ({text})")
    return _Checked(*sizes["render"], bytes=count)


def _refuse_problems(checked: list[_Checked]) -> None:
    problems = [found.problem for found in checked if found.problem]
    if problems:
        named = "; ".join(problems[:5]) + ("; ..." if len(problems) > 5 else ".")
        raise UserError(
            f"{len(problems)} of {len(checked)} samples cannot be used, and none is skipped silently: {named} "
            "Mend them or take them out of the manifest."
        )


def _plan(samples: list[Sample], checked: list[_Checked], val: int, shard_size: int, folder: Path) -> list[_Job]:
    """Cuts both splits into shards by size; keys number the manifest, so that they name the sample for good."""
    jobs = []
    first_val = len(samples) - val
    for split, numbers in (("train", range(first_val)), ("val", range(first_val, len(samples)))):
        groups: list[list[int]] = []
        filled = shard_size
        for number in numbers:
            if filled >= shard_size:
                groups.append([])
                filled = 0
            groups[-1].append(number)
            filled += checked[number].bytes
        for i, group in enumerate(groups):
            members = tuple((f"{number:08d}", samples[number], checked[number]) for number in group)
            jobs.append(_Job(folder, f"{split}-{i:06d}.tar", split, members))
    return jobs


def _write(job: _Job) -> Shard:
    """Writes one shard and syncs it to disk; its bytes depend on the job alone (fixed owner, mode and time)."""
    entries = []
    path = job.folder / job.name
    with path.open("wb") as file:
        for key, sample, found in job.samples:
            members = {}
            for view in VIEWS:
                content = sample.files[view].read_bytes()
                name = f"{key}.{view}.{extension_of(content)}"
                members[view] = (name, _add(file, name, content), len(content))
            entry = Entry(key, found.width, found.height, members, sample.sources)
            card = {"key": key, "width": found.width, "height": found.height, "sources": sample.sources}
            _add(file, f"{key}.json", json.dumps(card, sort_keys=True).encode())
            entries.append(entry)
        file.write(bytes(2 * BLOCK))
        file.flush()
        os.fsync(file.fileno())
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 22):
            digest.update(block)
    return Shard(job.name, job.split, path.stat().st_size, digest.hexdigest(), tuple(entries))


def _add(file: io.BufferedWriter, name: str, content: bytes) -> int:
    """Appends a ustar member and returns the byte offset of its content."""
    header = tarfile.TarInfo(name)
    header.size, header.mtime, header.mode = len(content), 0, 0o644
    file.write(header.tobuf(tarfile.USTAR_FORMAT))
    offset = file.tell()
    file.write(content)
    file.write(bytes(-len(content) % BLOCK))
    return offset
