"""What is the same for all peers: the bytes they store, and what becomes of a sample's bytes in their workers."""

import json
import os
import random
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from refiner_ds.bench.job import Job
from refiner_ds.bench.recipe import recipe
from refiner_ds.bench.window import Start
from refiner_ds.data.buckets import Bucket, parse_buckets
from refiner_ds.data.codecs import cut
from refiner_ds.data.manifest import VIEWS

SHARD_BYTES = 64 * 1024 * 1024
"""Bytes of a shard or chunk, for every peer, which is what most of them take or advise."""
SHARDS = 8
"""Shards that there are at least, so that they can be shuffled and dealt to workers."""
Transform = Callable[[Mapping[str, Any]], dict[str, Tensor]]


def contents(job: Job) -> Iterator[dict[str, bytes]]:
    """By view the stored bytes of each sample, in order."""
    for sample in _listed(job):
        yield {view: _read(*sample[view]) for view in VIEWS}


def shard_bytes(job: Job) -> int:
    """Bytes after which a new shard starts."""
    total = sum(size for sample in _listed(job) for _, _, size, _ in sample.values())
    return max(min(SHARD_BYTES, total // SHARDS), 1)


def transform_of(job: Job) -> Transform:
    """What makes a sample out of the bytes of its views."""
    (bucket,) = parse_buckets(job.bucket)
    if job.transform == "recipe":
        return partial(recipe, bucket=bucket)
    *_, kind = _listed(job)[0]["render"]
    return partial(cropped, kind=kind, bucket=bucket, resampling=job.transform)


def epochs_of(loader: Iterable[Mapping[str, Tensor]]) -> Start:
    """Laps over a loader whose epochs have an end: each runs to it before the next one starts."""
    epochs: list[Iterator[Tensor]] = []

    def start() -> Iterator[Tensor]:
        for _ in epochs.pop() if epochs else ():
            pass
        epochs.append(batch["render"] for batch in loader)
        return epochs[0]

    return start


def cropped(files: Mapping[str, Any], kind: str, bucket: Bucket, resampling: str) -> dict[str, Tensor]:
    """(H, H, 3) uint8 by view: cut by the codecs that ours has, at a place drawn for the sample."""
    x, views = random.randint(0, bucket.width - bucket.height), {}
    for view, content in files.items():
        square = np.empty((bucket.height, bucket.height, 3), np.uint8)
        cut(content, kind, bucket, x, square, resampling)
        views[view] = torch.from_numpy(square)
    return views


def _listed(job: Job) -> list[dict[str, Any]]:
    return json.loads(Path(job.sources).read_text(encoding="utf-8"))


def _read(path: str, offset: int, size: int, _kind: str) -> bytes:
    with open(path, "rb") as file:
        return os.pread(file.fileno(), size, offset)
