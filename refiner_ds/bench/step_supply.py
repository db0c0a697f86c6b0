"""What ours trains on in the bench of the step: batches in memory, or shards through training's own stream."""

import itertools
import time
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from refiner_ds.batch import Batch
from refiner_ds.bench.encoded import Shape, write_encoded
from refiner_ds.bench.material import Material as Pictures
from refiner_ds.bench.step_material import Material
from refiner_ds.bench.storage import KEPT
from refiner_ds.data.encoded_samples import training_samples
from refiner_ds.data.manifest import Sample
from refiner_ds.data.packing.crew import tell_nobody
from refiner_ds.data.samples import Samples
from refiner_ds.data.shards import open_shards
from refiner_ds.data.stream import Stream
from refiner_ds.data.workers.pool import AHEAD
from refiner_ds.errors import UserError

SEED = 0
STEPS = 1_000_000
"""Optimizer steps of the run that is read from; its order has no end."""


class Supply(Iterator[Batch]):
    """Micro-batches without an end.

    Attributes:
        waited: seconds so far until the next one was there, all together.
    """

    def __init__(self, batches: Iterator[Batch], ahead: int = 0) -> None:
        """ahead: so many of them may have been made before they are asked for."""
        self.waited = 0.0
        self._batches, self._ahead = batches, ahead

    def __next__(self) -> Batch:
        began = time.perf_counter()
        batch = next(self._batches)
        self.waited += time.perf_counter() - began
        return batch

    def settle(self) -> None:
        """Lets go of what was made ahead: while something else took time, it has become more than it will ever be."""
        for _ in range(self._ahead):
            next(self._batches)

    def close(self) -> None:
        """Ends the processes that read."""
        if isinstance(self._batches, Generator):
            self._batches.close()


def from_memory(batches: Sequence[Batch]) -> Supply:
    """These, again and again."""
    return Supply(itertools.cycle(batches))


@dataclass(frozen=True)
class Source:
    """Samples in shards that one rank trains from.

    Attributes:
        micro_batch_size, global_batch_size: samples of a micro-batch and of an optimizer step.
        workers: processes that read, as --dataloader_num_workers of train.
    """

    samples: Samples
    micro_batch_size: int
    global_batch_size: int
    workers: int
    pins_memory: bool

    @property
    def is_encoded(self) -> bool:
        """Whether they hold latents in place of pictures."""
        return self.samples.shards.index.encoding is not None

    def open(self) -> Supply:
        """Starts to read."""
        order = self.samples.order(self.global_batch_size)
        stream = Stream(self.samples, order, self.micro_batch_size, 0, 1, self.workers, self.pins_memory)
        return Supply(stream.batches(0, STEPS), ahead=self.workers * AHEAD)


def of_largest_bucket(samples: Samples) -> Samples:
    """Those of the bucket that most of them are of, so that every micro-batch has one shape.

    Raises:
        UserError: there is none.
    """
    if not len(samples):
        raise UserError(
            f"--shards {samples.shards.location} hold no training samples, so there is nothing to measure; name others."
        )
    counts = np.bincount(samples.bucket_of_sample)
    return replace(samples, rows=samples.rows[samples.bucket_of_sample == counts.argmax()])


def side_of(samples: Samples) -> int:
    """Pixels along a side of the crops of samples that are of one bucket."""
    return samples.buckets[samples.bucket_of_sample[0]].height


def require_shape(samples: Samples, shape: Shape) -> None:
    """Refuses latents that the network does not take.

    Raises:
        UserError: they are of another shape.
    """
    encoding = samples.shards.index.encoding
    if not encoding:
        return
    stored = Shape(encoding.channels, encoding.factor, encoding.embedding)
    if stored != shape:
        raise UserError(
            f"--shards {samples.shards.location} hold latents of {stored.channels} channels at 1/{stored.factor} and "
            f"embeddings of {stored.embedding} numbers, and the model of --size takes {shape.channels} at "
            f"1/{shape.factor} and {shape.embedding}; name the size that they were encoded for."
        )


def write_both(material: Material, folder: Path, count: int, shape: Shape) -> tuple[Samples, Samples]:
    """Packs the material's pictures, `count` samples of them at least, and random latents as if encoded of them."""
    files = [one for micro_batch in material.files for one in micro_batch]
    samples = [Sample({view: Path(path) for view, path in one.items()}, one) for one in files]
    pictures = Pictures(folder / "packed", samples, max(count, len(samples)), material.bucket, tell_nobody).shards(KEPT)
    write_encoded(pictures, folder / "encoded", "latent", material.bucket, shape)
    packed, encoded = (open_shards(str(where)) for where in (pictures, folder / "encoded"))
    return training_samples(packed, (material.bucket,), SEED), training_samples(encoded, (material.bucket,), SEED)
