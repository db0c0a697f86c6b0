"""The stream: the batches of one rank, read and decoded by workers, as tensors."""

import contextlib
import math
from collections.abc import Generator, Mapping
from dataclasses import dataclass
from typing import Any

import torch

from refiner_ds.batch import Batch, EncodedBatch
from refiner_ds.data.encoded_samples import EncodedSamples
from refiner_ds.data.latents import Encoding
from refiner_ds.data.manifest import VIEWS
from refiner_ds.data.order import Order
from refiner_ds.data.samples import Samples
from refiner_ds.data.workers.pool import Filled, filled

STORED = {"fp16": torch.float16, "bf16": torch.bfloat16}
"""Precisions of stored latents."""


@dataclass(frozen=True)
class Stream:
    """The batches of one rank: the same for any number of workers, from any step on without a replay."""

    samples: Samples
    order: Order
    micro_batch_size: int
    rank: int
    num_ranks: int
    workers: int
    pin_memory: bool = False

    def batches(self, first_step: int, last_step: int) -> Generator[Batch, None, None]:
        """Micro-batches of the optimizer steps first_step <= k < last_step, prefetched by the workers.

        Raises:
            UserError: a sample cannot be read; names shard and key.
        """
        jobs = self.order.micro_batches(first_step, last_step, self.micro_batch_size, self.rank, self.num_ranks)
        with contextlib.closing(filled(self.samples, jobs, self.workers, self.micro_batch_size)) as micro_batches:
            for micro_batch in micro_batches:
                batch = _batch_of(micro_batch, self.samples)
                yield batch.pin_memory() if self.pin_memory else batch


def _batch_of(filled: Filled, samples: Samples) -> Batch:
    """A batch whose tensors are views of what was filled, so that nothing is copied."""
    if isinstance(samples, EncodedSamples):
        return _encoded_batch_of(filled, samples.encoding)
    pictures = torch.from_numpy(filled.pictures).permute(0, 1, 4, 2, 3)
    views: Mapping[str, Any] = dict(zip(VIEWS, pictures, strict=True))
    positions = tuple(draw.position for draw in filled.draws)
    return Batch(**views, positions=positions, keys=filled.drawn.keys, replaced=filled.drawn.replaced)


def _encoded_batch_of(filled: Filled, encoding: Encoding) -> EncodedBatch:
    numbers = torch.from_numpy(filled.pictures).view(STORED[encoding.precision])
    side = math.isqrt((numbers.shape[1] - encoding.embedding) // (len(VIEWS) * encoding.channels))
    latents = numbers[:, : -encoding.embedding].unflatten(1, (len(VIEWS), encoding.channels, side, side))
    views: Mapping[str, Any] = dict(zip(VIEWS, latents.unbind(1), strict=True))
    positions = tuple(draw.position for draw in filled.draws)
    embedding = numbers[:, -encoding.embedding :]
    drawn = filled.drawn
    return EncodedBatch(**views, embedding=embedding, positions=positions, keys=drawn.keys, replaced=drawn.replaced)


def whole(samples: Samples, number: int) -> Batch:
    """One sample uncropped at its own size; its position is its number in the split.

    Raises:
        UserError: the sample cannot be read.
    """
    pictures = {view: torch.tensor(picture).permute(2, 0, 1)[None] for view, picture in samples.whole(number).items()}
    views: Mapping[str, Any] = pictures
    return Batch(**views, positions=(number,), keys=(samples.key(number),))
