"""The stream: reads, decodes and crops the samples of an order, in workers, by positioned reads from local shards."""

import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset

from refiner_ds.batch import Batch
from refiner_ds.chance import generator_of
from refiner_ds.data.images import Bucket, PictureError, bucket_of, crop, decode, to_array
from refiner_ds.data.index import Entry, Index
from refiner_ds.data.manifest import VIEWS
from refiner_ds.data.order import Draw, Order
from refiner_ds.errors import UserError

OPEN_SHARDS = 64
"""Shards that one process keeps open at most; systems often allow 1024 open files."""


@dataclass
class Split(Dataset):
    """The samples of one split, on disk: a map from draws to batches that any worker can evaluate."""

    folder: Path
    samples: list[tuple[str, Entry]]
    buckets: tuple[Bucket, ...]
    seed: int
    random_flip: bool = False
    _files: dict[str, int] = field(default_factory=dict, repr=False)

    @classmethod
    def of(
        cls,
        index: Index,
        name: str,
        folder: Path,
        buckets: tuple[Bucket, ...],
        seed: int,
        random_flip: bool = False,
    ) -> "Split":
        """The split `name` ("train" or "val") of packed shards.

        Args:
            random_flip: mirror half of the draws left to right, all three views alike.
        """
        return cls(folder, index.samples(name), buckets, seed, random_flip)

    def __len__(self) -> int:
        return len(self.samples)

    def bucket_of_sample(self) -> tuple[int, ...]:
        """Bucket index of every sample, from the sizes in the index; no picture is opened."""
        return tuple(bucket_of(entry.width, entry.height, self.buckets) for _, entry in self.samples)

    def __getitems__(self, draws: list[Draw]) -> "Batch | UserError":
        """The batch of these draws; a broken sample comes back as the error to raise: workers garble exceptions."""
        try:
            return _stack([self._crops(draw) for draw in draws], draws, [self.samples[d.sample][1].key for d in draws])
        except UserError as error:
            return error

    def __getitem__(self, draw: Draw) -> "Batch | UserError":
        return self.__getitems__([draw])

    def native(self, sample: int) -> Batch:
        """One sample uncropped at its own size; its position is its index in the split.

        Raises:
            UserError: the sample cannot be read.
        """
        views = {view: to_array(self._picture(sample, view)) for view in VIEWS}
        return _stack([views], [Draw(sample, 0, sample)], [self.samples[sample][1].key])

    def _crops(self, draw: Draw) -> dict[str, np.ndarray]:
        """(3, H, H) uint8 by view: the bucket-sized pictures cut at one place, drawn by the sample's position."""
        bucket = self.buckets[draw.bucket]
        chance = generator_of(self.seed, "crop", draw.position)
        x = int(chance.integers(0, bucket.width - bucket.height + 1))
        crops = {view: crop(self._picture(draw.sample, view), bucket, x) for view in VIEWS}
        if self.random_flip and chance.random() < 0.5:
            crops = {view: picture[..., ::-1] for view, picture in crops.items()}
        return crops

    def _picture(self, sample: int, view: str) -> Image.Image:
        shard, entry = self.samples[sample]
        name, offset, size = entry.members[view]
        try:
            content = os.pread(self._descriptor(shard), size, offset)
            if len(content) != size:
                raise PictureError(f"ends after {len(content)} of {size} bytes")
            return decode(content)
        except (OSError, PictureError) as error:
            raise UserError(
                f"sample {name} in {self.folder / shard} cannot be used: {error}; "
                f"`refiner-ds verify {self.folder}` lists all that is broken."
            ) from error

    def _descriptor(self, shard: str) -> int:
        """An open descriptor of a shard; `_files` holds the one used last at its end, and the first in it has to go."""
        if (descriptor := self._files.pop(shard, None)) is None:
            descriptor = os.open(self.folder / shard, os.O_RDONLY)
        self._files[shard] = descriptor
        if len(self._files) > OPEN_SHARDS:
            os.close(self._files.pop(next(iter(self._files))))
        return descriptor

    def __getstate__(self) -> dict:
        return {**self.__dict__, "_files": {}}  # descriptors belong to one process


def _stack(samples: list[dict[str, np.ndarray]], draws: list[Draw], keys: list[str]) -> Batch:
    pictures = {view: torch.from_numpy(np.stack([sample[view] for sample in samples])) for view in VIEWS}
    return Batch(**pictures, positions=tuple(draw.position for draw in draws), keys=tuple(keys))


@dataclass(frozen=True)
class Stream:
    """The batches of one rank: the same for any number of workers, from any step on without a replay."""

    split: Split
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
            self.split,
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


def _as_it_is(batch: Any) -> Any:
    return batch
