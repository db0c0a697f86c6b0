"""Verifying: every shard is read back, hashed, compared with the index to the byte, and its pictures are decoded."""

from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path

import numpy as np

from refiner_ds.data.buckets import parse_buckets
from refiner_ds.data.index import SOURCES_NAME, Index, Shard, read_index, sha256_of
from refiner_ds.data.packing.crew import Tell, crew_of, tell_nobody
from refiner_ds.data.packing.look import Look, Verified, look_at


def verify(folder: Path, workers: int, tell: Tell = tell_nobody) -> Iterator[Verified]:
    """Checks one shard after the other, and the files beside them, against the index.

    Raises:
        UserError: the folder holds no usable index.
    """
    index = read_index(folder)
    for name in _strangers(index):
        yield Verified(name, 0, 0, [f"{name} lies beside the shards and is in no index"])
    yield from verified(index, look_at, workers, tell)


def verified(index: Index, look: Callable[[Look], Verified], workers: int, tell: Tell) -> Iterator[Verified]:
    """Checks sources.jsonl, and by `look` one shard after the other, against an index that lies beside the former."""
    sources = _sources_problems(index)
    yield Verified(SOURCES_NAME, 0, 0, sources)
    done = size = 0
    with crew_of(workers) as crew:
        for file in crew.results(look, looks_of(index, with_lines=not sources)):
            done, size = done + file.samples, size + file.bytes
            tell("verifying", done, len(index), size)
            yield file


def _strangers(index: Index) -> list[str]:
    """Tars in the folder that readers of all its tars would take for its shards."""
    found = {path.relative_to(index.folder).as_posix() for path in index.folder.rglob("*.tar")}
    return sorted(found - {shard.name for shard in index.shards} - {skipped.source for skipped in index.skipped})


def _sources_problems(index: Index) -> list[str]:
    path = index.folder / SOURCES_NAME
    try:
        found = sha256_of(path)
    except OSError as error:
        return [f"{SOURCES_NAME} cannot be read ({error.strerror})"]
    return [] if found == index.sources_sha256 else [f"{SOURCES_NAME} has another sha256 than the index says"]


def looks_of(index: Index, with_lines: bool) -> Iterator[Look]:
    """One look for each tar; a foreign one may hold samples of both splits, and then is two shards of the index."""
    names = [dataset.name for dataset in index.datasets]
    bounds = np.cumsum([0, *(shard.samples for shard in index.shards)])
    rows: dict[str, list[slice]] = {}
    shards: dict[str, Shard] = {}
    for number, shard in enumerate(index.shards):
        rows.setdefault(shard.name, []).append(slice(bounds[number], bounds[number + 1]))
        shards[shard.name] = shard
    packed = index.made_by in ("pack", "encode")
    lines = _lines(index) if packed and with_lines else None
    buckets = parse_buckets(index.buckets) if index.buckets else ()
    for name, shard in shards.items():
        records = np.concatenate([index.records[part] for part in rows[name]])
        known = list(islice(lines, shard.samples)) if lines else None
        file = (name, shard.bytes, shard.sha256)
        yield Look(index.folder, *file, records, names, packed, buckets, known, index.encoding)


def _lines(index: Index) -> Iterator[str]:
    with (index.folder / SOURCES_NAME).open(encoding="utf-8") as file:
        yield from (line.rstrip("\n") for line in file)
