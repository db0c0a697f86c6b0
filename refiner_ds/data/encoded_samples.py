"""Encoded samples: what the draws of an order look like, cut from latents. Knows no tensor, and opens no picture."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from refiner_ds.chance import generator_of
from refiner_ds.data.buckets import Bucket
from refiner_ds.data.images import PictureError
from refiner_ds.data.latents import Encoding, require_fit
from refiner_ds.data.manifest import VIEWS
from refiner_ds.data.order import Draw
from refiner_ds.data.samples import Samples
from refiner_ds.data.shards import Shards


@dataclass
class EncodedSamples(Samples):
    """The training samples of encoded shards.

    Where a picture leaves room for one crop alone, a draw is the crop that it is of the pictures themselves; else it
    is another one, as crops of latents begin at whole latents.
    """

    @property
    def encoding(self) -> Encoding:
        """How they were made."""
        encoding = self.shards.index.encoding
        assert encoding, "the shards hold pictures"
        return encoding

    def shape(self, draws: Sequence[Draw]) -> tuple[int, ...]:
        """(B, bytes): of each sample the latents of VIEWS in their order, (3, c, h, h), and an embedding (d,)."""
        return len(draws), 2 * self.encoding.crop_numbers(self.buckets[draws[0].bucket])

    def most_bytes(self, count: int) -> int:
        """Bytes of `count` samples of the largest bucket."""
        return count * 2 * max(self.encoding.crop_numbers(bucket) for bucket in self.buckets)

    @staticmethod
    def place_of(filled: np.ndarray, number: int) -> np.ndarray:
        """What belongs to a sample of the batch."""
        return filled[number]

    def _crop(self, draw: Draw, out: np.ndarray) -> None:
        bucket, row, encoding = self.buckets[draw.bucket], self.rows[draw.sample], self.encoding
        chance = generator_of(self.seed, "crop", draw.position)
        columns = encoding.columns(bucket)
        column = columns[int(chance.integers(0, len(columns)))]
        variant = 1 if self.random_flip and chance.random() < 0.5 else 0
        numbers = out.view("<u2")
        latents = numbers[: -encoding.embedding].reshape(len(VIEWS), encoding.channels, -1)
        for view, place in zip(VIEWS, latents, strict=True):
            content = self.shards.read(row, view)
            with self.shards.naming(row, view):
                if len(content) != encoding.member_bytes(bucket, view):
                    raise PictureError(f"has {len(content)} bytes instead of {encoding.member_bytes(bucket, view)}")
            cut, embedding = encoding.cut(content, view, bucket, variant, column)
            place[...] = cut.reshape(place.shape)
            if view == "cond":
                numbers[-encoding.embedding :] = embedding


def training_samples(
    shards: Shards,
    buckets: tuple[Bucket, ...],
    seed: int,
    random_flip: bool = False,
    replaces: bool = False,
    resampling: str = "exact",
) -> Samples:
    """The samples of the split "train", whether the shards hold pictures or latents; see `Samples.of`.

    Raises:
        UserError: the shards hold latents of other buckets, or without the mirrored ones that are asked for.
    """
    if not shards.index.encoding:
        return Samples.of(shards, "train", buckets, seed, random_flip, replaces, resampling)
    require_fit(shards.index.encoding, buckets, random_flip, resampling, shards.location)
    return EncodedSamples(shards, shards.index.rows("train"), buckets, seed, random_flip, replaces)
