"""Encoded pictures as shards hold them: how they were made, and which bytes of a member a crop is.

The member of a view holds its latents; that of cond holds the embeddings of its windows after them. Both are plain
little-endian numbers of 16 bits, C order, without a header, as their shapes follow from the index and the bucket:

    latents (variants, crops, c, h, w), embeddings (variants, windows, d)

Variant 1, where there is one, is the mirrored picture. With crops "latent" there is one crop, the whole picture, and
training cuts columns of latents; with "windows" each crop is a window of its own, encoded from its pixels alone.
"""

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np

from refiner_ds.data.buckets import Bucket, parse_buckets, spelled
from refiner_ds.data.manifest import VIEWS
from refiner_ds.errors import UserError

LATENTS = "latents"
"""Extension of members that hold latents."""
Crops = Literal["latent", "windows"]


@dataclass(frozen=True)
class Encoding:
    """What decides encoded samples, as index.json says it under `encoding`.

    Attributes:
        source: digest of the shards of pictures.
        encoders: fingerprint of the VAE and the image encoder.
        scaling_factor: what the VAE's latents were multiplied with.
        precision: "fp16" or "bf16", of all numbers that are stored.
        computed_in: "fp32", "fp16" or "bf16", of the encoders.
        buckets: to whose sizes pictures were resized, as --buckets spells them.
        crops: "latent": latents of the whole picture; "windows": of fixed squares of it.
        windows: at most so many squares of a picture are embedded, and with crops "windows" encoded, evenly spaced.
        flips: whether the mirrored pictures are there too.
        channels, factor: c of a latent, and pixels along a side of one.
        embedding: length d of an image embedding.
    """

    source: str
    encoders: str
    scaling_factor: float
    precision: str
    computed_in: str
    buckets: str
    crops: Crops
    windows: int
    flips: bool
    channels: int
    factor: int
    embedding: int

    @property
    def variants(self) -> int:
        """1, or 2 where there are mirrored pictures."""
        return 2 if self.flips else 1

    def offsets(self, bucket: Bucket) -> tuple[int, ...]:
        """Pixels from the left at which each window of a picture begins, multiples of `factor`, evenly spaced."""
        places = (bucket.width - bucket.height) // self.factor
        count = min(self.windows, places + 1)
        if count == 1:
            return (places // 2 * self.factor,)
        return tuple(round(number * places / (count - 1)) * self.factor for number in range(count))

    def width(self, bucket: Bucket) -> int:
        """Pixels of each picture that are encoded, from its left: whole latents."""
        return bucket.width // self.factor * self.factor

    def latents_shape(self, bucket: Bucket) -> tuple[int, int, int, int, int]:
        """(variants, crops, c, h, w) of a view's latents."""
        side = bucket.height // self.factor
        if self.crops == "latent":
            return self.variants, 1, self.channels, side, self.width(bucket) // self.factor
        return self.variants, len(self.offsets(bucket)), self.channels, side, side

    def member_bytes(self, bucket: Bucket, view: str) -> int:
        """Bytes of the member of a view."""
        latents = math.prod(self.latents_shape(bucket))
        windows = self.variants * len(self.offsets(bucket)) * self.embedding
        return 2 * (latents + (windows if view == "cond" else 0))

    def crop_numbers(self, bucket: Bucket) -> int:
        """Numbers of one crop of a sample: latents of all views, and an embedding."""
        side = bucket.height // self.factor
        return len(VIEWS) * self.channels * side * side + self.embedding

    def cut(
        self, content: bytes, view: str, bucket: Bucket, variant: int, column: int
    ) -> tuple[np.ndarray, np.ndarray]:
        """One crop of a member: latents (c, h, h) and, of cond, the embedding (d,) of the window nearest to it, uint16.

        Args:
            variant: 0, or 1 for the mirrored picture.
            column: latents from the left; one of `columns`.
        """
        shape, side = self.latents_shape(bucket), bucket.height // self.factor
        numbers = np.frombuffer(content, "<u2")
        latents, embeddings = np.split(numbers, [math.prod(shape)])
        window = self.window(bucket, column)
        crops = latents.reshape(shape)[variant]
        cut = crops[0, :, :, column : column + side] if self.crops == "latent" else crops[window]
        if view != "cond":
            return cut, embeddings
        return cut, embeddings.reshape(self.variants, -1, self.embedding)[variant, window]

    def window(self, bucket: Bucket, column: int) -> int:
        """Number of the window that is nearest to the crop at a column."""
        distances = [abs(offset - column * self.factor) for offset in self.offsets(bucket)]
        return distances.index(min(distances))

    def columns(self, bucket: Bucket) -> tuple[int, ...]:
        """Where crops may begin, in latents from the left."""
        if self.crops == "windows":
            return tuple(offset // self.factor for offset in self.offsets(bucket))
        return tuple(range((bucket.width - bucket.height) // self.factor + 1))


def require_fit(
    encoding: Encoding, buckets: tuple[Bucket, ...], random_flip: bool, resampling: str, shards: str
) -> None:
    """Refuses what cannot be trained from encoded shards.

    Raises:
        UserError: names the flag.
    """
    if spelled(parse_buckets(encoding.buckets)) != spelled(buckets):
        raise UserError(
            f"--buckets {spelled(buckets)} differs from {encoding.buckets}, to which the pictures in {shards} were "
            f"resized before they were encoded; train with --buckets {encoding.buckets}, or encode again."
        )
    if random_flip and not encoding.flips:
        raise UserError(
            f"--random_flip, but {shards} hold no latents of mirrored pictures, and mirrored latents are not those; "
            "leave it out, or encode again with --flips."
        )
    if resampling != "exact":
        raise UserError(
            f"--resampling {resampling}, but the pictures in {shards} were resized when they were encoded, so it would "
            "do nothing; leave it out."
        )
