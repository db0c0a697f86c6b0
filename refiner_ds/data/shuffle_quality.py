"""How well orders shuffle frames of driving sequences: ours and others', as a table when run as a module.

Neighbouring frames are near-duplicates, so a batch is worth most when it holds few of one sequence.
"""

import random
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
import webdataset

from refiner_ds.data.order import Order
from refiner_ds.data.ordering.permutation import shuffled

FRAMES, SEQUENCE, SHARD, BATCH = 60_000, 1000, 200, 64
"""Frames of the manifest, frames of a sequence, samples of a shard, samples of a batch."""
NEAR = 3
"""Frames of one sequence that are at most so far apart count as near-duplicates."""


@dataclass(frozen=True)
class Quality:
    """How well one epoch is shuffled.

    Attributes:
        sequences: different sequences in a batch, in the mean.
        near_duplicates: share of the samples that follow another of their batch at most `NEAR` frames behind.
        apart: samples drawn between two neighbours of the manifest, the median.
    """

    sequences: float
    near_duplicates: float
    apart: float


def quality_of(frames: np.ndarray) -> Quality:
    """Judges an epoch, given as the manifest's numbers of the frames in the order drawn, each once, (n,) integer."""
    batches = np.sort(frames[: len(frames) // BATCH * BATCH].reshape(-1, BATCH), axis=1)
    is_same = batches[:, 1:] // SEQUENCE == batches[:, :-1] // SEQUENCE
    is_near = is_same & (np.diff(batches) <= NEAR)
    moments = np.argsort(frames)
    return Quality(
        float(np.mean(BATCH - is_same.sum(axis=1))),
        float(is_near.sum() / batches.size),
        float(np.median(np.abs(np.diff(moments)))),
    )


def of_ours(packed: np.ndarray, window_shards: int | None, lanes: int = 1) -> np.ndarray:
    """The first epoch of our order over shards that hold the manifest's frames `packed`, (n,)."""
    shards = np.arange(FRAMES) // SHARD
    order = Order(np.zeros(FRAMES, np.uint8), BATCH, 0, shards, window_shards=window_shards, lanes=lanes)
    draws = [order.walks[0].draws(batch, range(BATCH)) for batch in range(FRAMES // BATCH)]
    return packed[np.concatenate(draws)]


def of_webdataset(packed: np.ndarray, buffer: int) -> np.ndarray:
    """An epoch of WebDataset in one process: shards in random order, then its own shuffle buffer over their samples."""
    chance = random.Random(0)
    shards = list(packed.reshape(-1, SHARD))
    chance.shuffle(shards)
    return np.array(list(webdataset.shuffle(buffer, rng=chance)(frame for shard in shards for frame in shard)))


def of_torch() -> np.ndarray:
    """What torch's RandomSampler draws: a permutation of everything."""
    return torch.randperm(FRAMES, generator=torch.Generator().manual_seed(0)).numpy()


def ours() -> Iterator[tuple[str, Quality]]:
    """Our order, over shards packed in shuffled order (what pack does unless told otherwise) and in list order."""
    kinds = {"shuffled": shuffled(FRAMES, 0, "pack"), "list": np.arange(FRAMES)}
    for kind, packed in kinds.items():
        for window_shards in (None, 16, 4, 1):
            window = f"window of {window_shards}" if window_shards else "all shards"
            yield f"ours, packed in {kind} order, {window}", quality_of(of_ours(packed, window_shards))
    yield "ours, packed in shuffled order, window of 4, 8 lanes", quality_of(of_ours(kinds["shuffled"], 4, lanes=8))


def others() -> Iterator[tuple[str, Quality]]:
    """Torch's full permutation, and WebDataset's buffer over the same shards."""
    yield "torch, full permutation", quality_of(of_torch())
    for kind, packed in (("list", np.arange(FRAMES)), ("shuffled", shuffled(FRAMES, 0, "pack"))):
        for buffer in (100, 1000):
            name = f"webdataset, packed in {kind} order, shuffle({buffer})"
            yield name, quality_of(of_webdataset(packed, buffer))


def line_of(name: str, quality: Quality) -> str:
    """A row of the table."""
    return f"| {name} | {quality.sequences:.1f} | {quality.near_duplicates:.2%} | {quality.apart:,.0f} |"


def main() -> None:
    """Prints the table."""
    print("| order | sequences per batch | near-duplicates | neighbours apart |\n|---|---|---|---|")
    for name, quality in (*others(), *ours()):
        print(line_of(name, quality))


if __name__ == "__main__":
    main()
