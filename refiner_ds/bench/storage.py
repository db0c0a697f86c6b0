"""How the pictures of the bench are stored: packed by us in each of the ways that `pack` knows, or encoded."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from refiner_ds.data.buckets import Bucket
from refiner_ds.data.index import Dataset, Index
from refiner_ds.data.latents import Crops
from refiner_ds.data.manifest import Sample
from refiner_ds.data.pack import Recipe, pack
from refiner_ds.data.packing.crew import Tell, tell_nobody
from refiner_ds.data.packing.recode import Codec, Recoding

SHARDS = 8
"""Shards that there are about."""


@dataclass(frozen=True)
class Storage:
    """What `pack` is told of the pictures, and `encode` if they are encoded then."""

    codec: Codec = "keep"
    resize: bool = False
    crops: Crops | None = None

    @property
    def name(self) -> str:
        """What a folder of it is called."""
        return f"{self.codec}{'-bucket' if self.resize else ''}{f'-{self.crops}' if self.crops else ''}"


KEPT = Storage()
TIFF, TIFF_BUCKET = Storage("tiff"), Storage("tiff", resize=True)
NPY_BUCKET, JPEG = Storage("npy", resize=True), Storage("jpeg")
LATENT, WINDOWS = Storage(crops="latent"), Storage(crops="windows")


def write_shards(
    samples: Sequence[Sample], out: Path, storage: Storage, bucket: Bucket, workers: int, tell: Tell = tell_nobody
) -> Index:
    """Packs all samples for training."""
    size = sum(path.stat().st_size for sample in samples for path in sample.files.values())
    datasets = [Dataset("bench", 1.0, "bench", len(samples))]
    recoding = Recoding(storage.codec, buckets=(bucket,) if storage.resize else ())
    recipe = Recipe(shard_size=max(size // SHARDS, 1), recoding=recoding)
    return pack(samples, ["train"] * len(samples), datasets, out, recipe, workers, tell=tell)
