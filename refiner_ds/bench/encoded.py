"""Encoded shards of random numbers at the shapes of a model: a reader of bytes cannot tell them from others."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from refiner_ds.data.buckets import Bucket, spelled
from refiner_ds.data.encode import Encoded, digest_of
from refiner_ds.data.latents import Crops, Encoding
from refiner_ds.data.manifest import VIEWS
from refiner_ds.data.packing.scratch import Scratch
from refiner_ds.data.shards import open_shards

SEED = 0


@dataclass(frozen=True)
class Shape:
    """Of what the encoders make: channels of a latent, pixels along a side of one, and length of an embedding."""

    channels: int
    factor: int
    embedding: int


FULL = Shape(channels=4, factor=8, embedding=1024)
"""Stable Diffusion's VAE and ViT-H."""


def write_encoded(source: Path, out: Path, crops: Crops, bucket: Bucket, shape: Shape = FULL) -> None:
    """Writes what `encode` does, by its own writer, of all shards of `source`, whose pictures are of one bucket."""
    shards = open_shards(str(source))
    encoding, generator = random_encoding(shards.index.digest, crops, bucket, shape), np.random.default_rng(SEED)

    def members(_: int) -> Sequence[bytes]:
        counts = [encoding.member_bytes(bucket, view) // 2 for view in VIEWS]
        return [generator.standard_normal(count, np.float32).astype("<f2").tobytes() for count in counts]

    scratch, digest = Scratch(out, "encode", "encoding"), digest_of(encoding)
    with scratch.locked():
        encoded = Encoded(shards, encoding, scratch.begin(digest, lambda _: None))
        for part in encoded.parts:
            encoded.write(part, members)
        encoded.commit(lambda _, __: None)
        scratch.remove()


def random_encoding(source: str, crops: Crops, bucket: Bucket, shape: Shape) -> Encoding:
    """How a model of this shape encodes by the defaults of `encode`."""
    return Encoding(
        source=source,
        encoders="random numbers",
        scaling_factor=0.18215,
        precision="fp16",
        computed_in="fp32",
        buckets=spelled((bucket,)),
        crops=crops,
        windows=4,
        flips=False,
        **asdict(shape),
    )
