"""The stream: the batches of one rank, read and decoded by workers, as tensors."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from refiner_ds.batch import Batch
from refiner_ds.data.manifest import VIEWS
from refiner_ds.data.order import Draw, Order
from refiner_ds.data.samples import Drawn, Samples
from refiner_ds.errors import UserError


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

    def batches(self, first_step: int, last_step: int) -> Iterator[Batch]:
        """Micro-batches of the optimizer steps first_step <= k < last_step, prefetched by the workers.

        Raises:
            UserError: a sample cannot be read; names shard and key.
        """
        draws = self.order.micro_batches(first_step, last_step, self.micro_batch_size, self.rank, self.num_ranks)
        loader: Any = DataLoader(
            _Filled(self.samples),
            batch_sampler=draws,
            collate_fn=_as_it_is,
            num_workers=self.workers,
            pin_memory=self.pin_memory,
            # forking a process that already runs threads of torch, gloo or CUDA can deadlock
            multiprocessing_context="spawn" if self.workers else None,
        )
        for batch in loader:
            if isinstance(batch, UserError):
                raise batch
            yield batch


class _Filled(Dataset):
    def __init__(self, samples: Samples) -> None:
        self.samples = samples

    def __getitems__(self, draws: list[Draw]) -> "Batch | UserError":
        pictures = np.empty(self.samples.shape(draws), np.uint8)
        try:
            drawn = self.samples.fill(draws, pictures)
        except UserError as error:
            return error
        return batch_of(torch.from_numpy(pictures), draws, drawn)


def _as_it_is(batch: Any) -> Any:
    return batch


def batch_of(pictures: torch.Tensor, draws: Sequence[Draw], drawn: Drawn) -> Batch:
    """A batch whose pictures are views into (V, B, H, H, 3) uint8."""
    views: Mapping[str, Any] = dict(zip(VIEWS, pictures.permute(0, 1, 4, 2, 3), strict=True))
    return Batch(**views, positions=tuple(draw.position for draw in draws), keys=drawn.keys, replaced=drawn.replaced)


def whole(samples: Samples, number: int) -> Batch:
    """One sample uncropped at its own size; its position is its number in the split.

    Raises:
        UserError: the sample cannot be read.
    """
    pictures = {view: torch.tensor(picture).permute(2, 0, 1)[None] for view, picture in samples.whole(number).items()}
    views: Mapping[str, Any] = pictures
    return Batch(**views, positions=(number,), keys=(samples.key(number),))
