"""LitData as a process of the bench: chunks of `optimize`, read through its dataset and its loader."""

from typing import Any

import litdata

from refiner_ds.bench.job import Job
from refiner_ds.bench.peers.samples import contents, epochs_of, shard_bytes, transform_of
from refiner_ds.bench.window import Start, main


def write(job: Job) -> int:
    """Chunks without compression."""
    samples = litdata.streaming.Cache(job.folder, chunk_bytes=shard_bytes(job))
    count = 0
    for sample in contents(job):
        samples[count] = sample
        count += 1
    samples.done()
    samples.merge()
    return count


def read(job: Job) -> Start:
    """Local chunks, shuffled, another epoch in each lap."""
    dataset = litdata.StreamingDataset(job.folder, shuffle=True, seed=job.seed, transform=transform_of(job))
    loader: Any = litdata.StreamingDataLoader(
        dataset, batch_size=job.batch_size, num_workers=job.workers, persistent_workers=True
    )
    return epochs_of(loader)


if __name__ == "__main__":
    main(read, write)
