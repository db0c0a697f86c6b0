"""The stream: reads, decodes and crops the samples of an order, in workers, by positioned reads from local shards."""

import functools
import os
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import google_crc32c
import numpy as np
import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset

from refiner_ds.batch import Batch
from refiner_ds.chance import generator_of
from refiner_ds.data.images import Bucket, PictureError, bucket_of, crop, decode, to_array
from refiner_ds.data.index import Index
from refiner_ds.data.manifest import VIEWS
from refiner_ds.data.order import Draw, Order
from refiner_ds.errors import UserError

STAND_INS = 8
"""Samples that are tried for one draw."""

OPEN_SHARDS = 64
"""Shards that one process keeps open at most; systems often allow 1024 open files."""


@dataclass
class Split(Dataset):
    """The samples of one split, on disk: a map from draws to batches that any worker can evaluate."""

    folder: Path
    index: Index
    rows: np.ndarray
    buckets: tuple[Bucket, ...]
    seed: int
    random_flip: bool = False
    replaces: bool = False
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
        replaces: bool = False,
    ) -> "Split":
        """The split `name` ("train" or "val") of packed shards.

        Args:
            random_flip: mirror half of the draws left to right, all three views alike.
            replaces: put another sample of the bucket, chosen by the draw's position, in the place of a broken one.
        """
        return cls(folder, index, index.rows(name), buckets, seed, random_flip, replaces)

    def __len__(self) -> int:
        return len(self.rows)

    @functools.cached_property
    def bucket_of_sample(self) -> np.ndarray:
        """(samples,) int: bucket index of every sample, from the sizes in the index; no picture is opened."""
        sizes = self.index.records[["width", "height"]][self.rows]
        shapes, numbers = np.unique(sizes, return_inverse=True)
        buckets = np.array([bucket_of(int(width), int(height), self.buckets) for width, height in shapes], int)
        return buckets[numbers]

    def order(self, global_batch_size: int, window_shards: int | None = None, lanes: int = 1) -> Order:
        """The order of a run over this split, its samples weighted as their datasets are."""
        records, weights = self.index.records, np.array([dataset.weight for dataset in self.index.datasets])
        return Order(
            self.bucket_of_sample,
            global_batch_size,
            self.seed,
            records["shard"][self.rows],
            weights[records["dataset"][self.rows]] if (weights != 1).any() else None,
            window_shards,
            lanes,
        )

    def key(self, sample: int) -> str:
        """Key of a sample of the split."""
        return self.index.key(self.rows[sample])

    def __getitems__(self, draws: list[Draw]) -> "Batch | UserError":
        """The batch of these draws; a broken sample comes back as the error to raise: workers garble exceptions."""
        replaced: list[str] = []
        try:
            found = [self._usable(draw, replaced) for draw in draws]
        except UserError as error:
            return error
        batch = _stack([views for _, views in found], draws, [self.key(sample) for sample, _ in found])
        return replace(batch, replaced=tuple(replaced))

    def __getitem__(self, draw: Draw) -> "Batch | UserError":
        return self.__getitems__([draw])

    def native(self, sample: int) -> Batch:
        """One sample uncropped at its own size; its position is its index in the split.

        Raises:
            UserError: the sample cannot be read.
        """
        views = {view: to_array(self._picture(sample, view)) for view in VIEWS}
        return _stack([views], [Draw(sample, 0, sample)], [self.key(sample)])

    def _usable(self, draw: Draw, replaced: list[str]) -> tuple[int, dict[str, np.ndarray]]:
        """The drawn sample and its crops, or those of what stands in for it; tells `replaced` what was broken."""
        for attempt in range(STAND_INS):
            try:
                return draw.sample, self._crops(draw)
            except UserError as error:
                if not self.replaces:
                    raise
                replaced.append(str(error))
            others = self._of_bucket[draw.bucket]
            chosen = generator_of(self.seed, "stand-in", draw.position, attempt).integers(len(others))
            draw = Draw(int(others[chosen]), draw.bucket, draw.position)
        raise UserError(f"{STAND_INS} samples of one bucket in a row cannot be used: {'; '.join(replaced)}")

    @functools.cached_property
    def _of_bucket(self) -> dict[int, np.ndarray]:
        """Samples by bucket."""
        return {bucket: np.flatnonzero(self.bucket_of_sample == bucket) for bucket in set(self.bucket_of_sample)}

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
        shard, name, offset, size, crc = self.index.member(self.rows[sample], view)
        try:
            content = os.pread(self._descriptor(shard), size, offset)
            if len(content) != size:
                raise PictureError(f"ends after {len(content)} of {size} bytes")
            if google_crc32c.value(content) != crc:
                raise PictureError("has other bytes than the index says (crc32c)")
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
        made_anew = ("bucket_of_sample", "_of_bucket")
        state = {name: value for name, value in self.__dict__.items() if name not in made_anew}
        return {**state, "_files": {}}  # descriptors belong to one process


def _stack(samples: list[dict[str, np.ndarray]], draws: list[Draw], keys: list[str]) -> Batch:
    pictures: dict[str, Any] = {
        view: torch.from_numpy(np.stack([sample[view] for sample in samples])) for view in VIEWS
    }
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
