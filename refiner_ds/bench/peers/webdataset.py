"""WebDataset as a process of the bench: tars of ShardWriter, read through WebLoader."""

from functools import partial
from pathlib import Path

import webdataset
from torch import Tensor

from refiner_ds.bench.job import Job
from refiner_ds.bench.peers.samples import Transform, contents, shard_bytes, transform_of
from refiner_ds.bench.window import Start, main
from refiner_ds.data.index import sha256_of
from refiner_ds.data.manifest import VIEWS

BUFFER = 16
"""Samples of its shuffle buffer; few, as every worker holds the bytes of so many triplets."""


def write(job: Job) -> int:
    """Tars, each hashed once it is closed, as ours are."""
    pattern = f"{job.folder}/%06d.tar"
    with webdataset.ShardWriter(
        pattern, maxsize=shard_bytes(job), post=lambda path: sha256_of(Path(path)), verbose=0
    ) as writer:
        for number, sample in enumerate(contents(job)):
            pictures = {f"{view}.bin": content for view, content in sample.items()}
            writer.write({"__key__": f"{number:08d}", **pictures})
    return writer.total


def read(job: Job) -> Start:
    """By the recipe of its documentation for training: shards drawn without an end, a buffer shuffled, batches."""
    shards = sorted(map(str, Path(job.folder).glob("*.tar")))
    dataset = (
        webdataset.WebDataset(shards, resampled=True, seed=job.seed)
        .shuffle(BUFFER)
        .map(partial(_transformed, transform=transform_of(job)))
    )
    loader = webdataset.WebLoader(dataset, batch_size=job.batch_size, num_workers=job.workers, persistent_workers=True)
    batches = (batch["render"] for batch in loader)
    return lambda: batches


def _transformed(sample: dict, transform: Transform) -> dict[str, Tensor]:
    return transform({view: sample[f"{view}.bin"] for view in VIEWS})


if __name__ == "__main__":
    main(read, write)
