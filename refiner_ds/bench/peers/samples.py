"""What is the same for all peers: the bytes they store, and what becomes of a sample's bytes in their workers."""

import json
import os
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path

from torch import Tensor

from refiner_ds.bench.job import Job
from refiner_ds.bench.recipe import recipe
from refiner_ds.data.buckets import parse_buckets
from refiner_ds.data.manifest import VIEWS

SHARD_BYTES = 64 * 1024 * 1024
"""Bytes of a shard or chunk, for every peer, which is what most of them take or advise."""
SHARDS = 8
"""Shards that there are at least, so that they can be shuffled and dealt to workers."""
Transform = Callable[[Mapping[str, bytes]], dict[str, Tensor]]


def contents(job: Job) -> Iterator[dict[str, bytes]]:
    """By view the stored bytes of each sample, in order."""
    for sample in json.loads(Path(job.sources).read_text(encoding="utf-8")):
        yield {view: _read(*sample[view]) for view in VIEWS}


def shard_bytes(job: Job) -> int:
    """Bytes after which a new shard starts."""
    samples = json.loads(Path(job.sources).read_text(encoding="utf-8"))
    total = sum(size for sample in samples for _, _, size, _ in sample.values())
    return max(min(SHARD_BYTES, total // SHARDS), 1)


def transform_of(job: Job) -> Transform:
    """What makes a sample out of the bytes of its views."""
    (bucket,) = parse_buckets(job.bucket)
    return partial(recipe, bucket=bucket)


def _read(path: str, offset: int, size: int, _kind: str) -> bytes:
    with open(path, "rb") as file:
        return os.pread(file.fileno(), size, offset)
