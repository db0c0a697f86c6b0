"""WebDataset as a process of the bench: tars of ShardWriter, read through WebLoader."""

import hashlib
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import webdataset
from torch import Tensor

from refiner_ds.bench.job import Job
from refiner_ds.bench.peers.samples import Transform, contents, shard_bytes, transform_of
from refiner_ds.bench.window import main
from refiner_ds.data.manifest import VIEWS

BUFFER = 16
"""Samples of its shuffle buffer; few, as every worker holds the bytes of so many triplets."""


def write(job: Job) -> int:
    """Tars, each hashed once it is closed, as ours are."""
    pattern = f"{job.folder}/%06d.tar"
    with webdataset.ShardWriter(pattern, maxsize=shard_bytes(job), post=_sha256, verbose=0) as writer:
        for number, sample in enumerate(contents(job)):
            pictures = {f"{view}.bin": content for view, content in sample.items()}
            writer.write({"__key__": f"{number:08d}", **pictures})
    return writer.total


def read(job: Job) -> Iterator[Tensor]:
    """Batches by the recipe of its documentation: shards and samples shuffled, batched in the workers."""
    shards = sorted(map(str, Path(job.folder).glob("*.tar")))
    dataset = (
        webdataset.WebDataset(shards, shardshuffle=len(shards), repeat=True, seed=job.seed)
        .shuffle(BUFFER)
        .map(partial(_transformed, transform=transform_of(job)))
    )
    loader = webdataset.WebLoader(
        dataset, batch_size=job.batch_size, num_workers=job.workers, persistent_workers=job.workers > 0
    )
    return (batch["render"] for batch in loader)


def _transformed(sample: dict, transform: Transform) -> dict[str, Tensor]:
    return transform({view: sample[f"{view}.bin"] for view in VIEWS})


def _sha256(path: str) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


if __name__ == "__main__":
    main(read, write)
