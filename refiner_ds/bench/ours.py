"""Our loader as a process of the bench: the stream that training reads, over packed or encoded shards."""

from refiner_ds.bench.job import Job
from refiner_ds.bench.window import Start, main
from refiner_ds.data.buckets import parse_buckets
from refiner_ds.data.encoded_samples import training_samples
from refiner_ds.data.shards import open_shards
from refiner_ds.data.stream import Stream

STEPS = 1_000_000
"""Optimizer steps of the run that is read from; its order has no end."""


def read(job: Job) -> Start:
    """Micro-batches of one rank, each an optimizer step, without an end."""
    shards, buckets = open_shards(job.folder), parse_buckets(job.bucket)
    samples = training_samples(shards, buckets, job.seed, resampling=job.transform)
    stream = Stream(samples, samples.order(job.batch_size), job.batch_size, 0, 1, job.workers)
    batches = (batch.render for batch in stream.batches(0, STEPS))
    return lambda: batches


if __name__ == "__main__":
    main(read)
