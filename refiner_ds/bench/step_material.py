"""What the benches train on, encode and repair: synthetic triplets as PNG files and, for ours, as batches in memory."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from refiner_ds.batch import Batch
from refiner_ds.bench.pictures import HEIGHT, WIDTH, write_triplets
from refiner_ds.bench.recipe import recipe
from refiner_ds.data.buckets import Bucket
from refiner_ds.data.manifest import VIEWS

DISTINCT = 4
"""Triplets that are drawn at most, as each takes a second; samples are these in turn."""


@dataclass(frozen=True)
class Material:
    """One optimizer step's samples.

    Attributes:
        files: by micro-batch and sample, the path of each view's PNG of 1408x376 pixels.
        batches: the same samples, resized and cropped, by micro-batch.
        bucket: what whole pictures are resized to, and `crop_width` pixels are cut from it.
    """

    files: list[list[dict[str, str]]]
    batches: list[Batch]
    bucket: Bucket
    crop_width: int


def make_material(
    folder: Path,
    height: int,
    width: int,
    micro_batch_size: int,
    accumulation_steps: int,
    tell: Callable[..., None],
) -> Material:
    """Draws the pictures into `folder`; crops are `height` x `width` pixels."""
    total = micro_batch_size * accumulation_steps
    samples = write_triplets(folder, tell, min(DISTINCT, total))
    files = [{view: str(sample.files[view]) for view in VIEWS} for sample in samples]
    bucket = Bucket(WIDTH / HEIGHT, max(width, round(height * WIDTH / HEIGHT)), height)
    views = [{view: _to_bytes(crop) for view, crop in recipe(one, bucket, 0, width).items()} for one in files]
    firsts = range(0, total, micro_batch_size)
    numbers = [range(first, first + micro_batch_size) for first in firsts]
    return Material(
        [[files[number % len(files)] for number in each] for each in numbers],
        [_batch([views[number % len(files)] for number in each], each) for each in numbers],
        bucket,
        width,
    )


def _batch(samples: list[dict[str, Tensor]], numbers: range) -> Batch:
    render, gt, cond = (torch.stack([sample[view] for sample in samples]) for view in ("render", "gt", "cond"))
    return Batch(render, gt, cond, tuple(numbers), tuple(f"{number:06d}" for number in numbers))


def _to_bytes(crop: Tensor) -> Tensor:
    """(3, H, W) in [-1, 1] to uint8 in 0..255."""
    return ((crop + 1.0) * 127.5).round().to(torch.uint8)
