"""The samples of one split: what the draws of an order look like, decoded, cropped and flipped. Knows no tensor."""

import functools
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from refiner_ds.chance import generator_of
from refiner_ds.data.buckets import Bucket, bucket_of
from refiner_ds.data.codecs import cut, decode
from refiner_ds.data.manifest import VIEWS
from refiner_ds.data.order import Draw, Order
from refiner_ds.data.shards import BrokenSample, Shards
from refiner_ds.errors import UserError

STAND_INS = 8
"""Samples that are tried for one draw."""


@dataclass(frozen=True)
class Drawn:
    """What a micro-batch was filled with.

    Attributes:
        keys: name of each sample in its shard.
        replaced: broken samples that others of the batch stand in for, each a sentence with its name and the cause.
    """

    keys: tuple[str, ...]
    replaced: tuple[str, ...] = ()


@dataclass
class Samples:
    """The samples of one split: a map from draws to pictures that any process can evaluate."""

    shards: Shards
    rows: np.ndarray
    buckets: tuple[Bucket, ...]
    seed: int
    random_flip: bool = False
    replaces: bool = False
    resampling: str = "exact"
    _made_anew: tuple[str, ...] = field(default=("bucket_of_sample", "_of_bucket"), init=False, repr=False)

    @classmethod
    def of(
        cls,
        shards: Shards,
        split: str,
        buckets: tuple[Bucket, ...],
        seed: int,
        random_flip: bool = False,
        replaces: bool = False,
        resampling: str = "exact",
    ) -> "Samples":
        """The samples of the split "train" or "val".

        Args:
            random_flip: mirror half of the draws left to right, all three views alike.
            replaces: put another sample of the bucket, chosen by the draw's position, in the place of a broken one.
            resampling: how crops are resized, "exact" or "window", see `codecs.cut`.

        Raises:
            UserError: the shards hold no pictures of that split.
        """
        if split == "train" and shards.index.encoding:
            raise UserError(
                f"shards {shards.location} hold latents of the training pictures and not the pictures, which are "
                f"needed here; name the shards that they were encoded from, of digest {shards.index.encoding.source}."
            )
        return cls(shards, shards.index.rows(split), buckets, seed, random_flip, replaces, resampling)

    def __len__(self) -> int:
        return len(self.rows)

    @functools.cached_property
    def bucket_of_sample(self) -> np.ndarray:
        """(samples,) int: bucket index of every sample, from the sizes in the index; no picture is opened."""
        sizes = self.shards.index.records[["width", "height"]][self.rows]
        shapes, numbers = np.unique(sizes, return_inverse=True)
        buckets = np.array([bucket_of(int(width), int(height), self.buckets) for width, height in shapes], int)
        return buckets[numbers]

    def order(self, global_batch_size: int, window_shards: int | None = None, lanes: int = 1) -> Order:
        """The order of a run over this split, its samples weighted as their datasets are."""
        index = self.shards.index
        records, weights = index.records, np.array([dataset.weight for dataset in index.datasets])
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
        return self.shards.index.key(self.rows[sample])

    def shape(self, draws: Sequence[Draw]) -> tuple[int, ...]:
        """(V, B, H, H, 3): the shape of what `fill` fills, V views of B samples."""
        height = self.buckets[draws[0].bucket].height
        return len(VIEWS), len(draws), height, height, 3

    def most_bytes(self, count: int) -> int:
        """Bytes of `count` samples of the largest bucket."""
        height = max(bucket.height for bucket in self.buckets)
        return len(VIEWS) * count * height * height * 3

    def fill(self, draws: Sequence[Draw], pictures: np.ndarray) -> Drawn:
        """Fills (V, B, H, H, 3) uint8 RGB with the crops of these draws, which are of one bucket.

        Raises:
            UserError: a sample cannot be used; names sample, shard and cause.
        """
        replaced: list[str] = []
        places = (self.place_of(pictures, number) for number in range(len(draws)))
        keys = tuple(self.key(self._usable(draw, place, replaced)) for draw, place in zip(draws, places, strict=True))
        return Drawn(keys, tuple(replaced))

    @staticmethod
    def place_of(filled: np.ndarray, number: int) -> np.ndarray:
        """What belongs to a sample of the batch: (V, H, H, 3)."""
        return filled[:, number]

    def whole(self, sample: int) -> dict[str, np.ndarray]:
        """(H, W, 3) uint8 RGB by view: a sample uncropped at the size at which it is stored.

        Raises:
            UserError: the sample cannot be used.
        """
        found = {}
        for view in VIEWS:
            content = self.shards.read(self.rows[sample], view)
            with self.shards.naming(self.rows[sample], view):
                found[view] = decode(content, self.shards.index.member(self.rows[sample], view).kind)
        return found

    def _usable(self, draw: Draw, pictures: np.ndarray, replaced: list[str]) -> int:
        """Fills in the drawn sample, or what stands in for it, and returns it; tells `replaced` what was broken."""
        for attempt in range(STAND_INS):
            try:
                self._crop(draw, pictures)
                return draw.sample
            except BrokenSample as error:
                if not self.replaces:
                    raise
                replaced.append(str(error))
            others = self._of_bucket[draw.bucket]
            chosen = generator_of(self.seed, "stand-in", draw.position, attempt).integers(len(others))
            draw = Draw(int(others[chosen]), draw.bucket, draw.position)
        raise UserError(f"{STAND_INS} samples of one bucket in a row cannot be used: {'; '.join(replaced)}")

    def _crop(self, draw: Draw, pictures: np.ndarray) -> None:
        """Fills (V, H, H, 3): the bucket-sized pictures cut at one place, drawn by the sample's position."""
        bucket, row = self.buckets[draw.bucket], self.rows[draw.sample]
        chance = generator_of(self.seed, "crop", draw.position)
        x = int(chance.integers(0, bucket.width - bucket.height + 1))
        step = -1 if self.random_flip and chance.random() < 0.5 else 1
        for view, picture in zip(VIEWS, pictures, strict=True):
            content, kind = self.shards.read(row, view), self.shards.index.member(row, view).kind
            with self.shards.naming(row, view):
                cut(content, kind, bucket, x, picture[:, ::step], self.resampling)

    @functools.cached_property
    def _of_bucket(self) -> dict[int, np.ndarray]:
        """Samples by bucket."""
        return {bucket: np.flatnonzero(self.bucket_of_sample == bucket) for bucket in set(self.bucket_of_sample)}

    def __getstate__(self) -> dict:
        return {name: value for name, value in self.__dict__.items() if name not in self._made_anew}
