"""What verbs that make an index say of it."""

import sys

import numpy as np

from refiner_ds.data.index import SPLITS, Index

NAMED = 5
"""Samples that were left out and are named; the index lists all."""


def say(text: str) -> None:
    """Tells a person something beside the result."""
    print(text, file=sys.stderr, flush=True)


def say_index(index: Index, seconds: float) -> None:
    """Counts what is in an index, by split and dataset, and what was left out."""
    for split in SPLITS:
        shards = [shard for shard in index.shards if shard.split == split]
        size = sum(shard.bytes for shard in shards) / 1e6
        print(f"{split}: {sum(shard.samples for shard in shards)} samples in {len(shards)} shards, {size:.1f} MB")
    if len(index.datasets) > 1:
        held = np.bincount(index.records["dataset"][index.rows("val")], minlength=len(index.datasets))
        for dataset, count in zip(index.datasets, held, strict=True):
            print(f"{dataset.name}: {dataset.samples} samples, {count} of them held out, weight {dataset.weight:g}")
    if index.skipped:
        print(f"skipped: {len(index.skipped)} samples, listed in {index.folder / 'index.json'}")
    for skipped in index.skipped[:NAMED]:
        say(f"skipped: {skipped.dataset}, {skipped.source}: {skipped.reason}")
    if len(index.skipped) > NAMED:
        say(f"skipped: {len(index.skipped) - NAMED} more")
    size = sum({shard.name: shard.bytes for shard in index.shards}.values()) / 1e6
    speed = f"{len(index) / seconds:.1f} samples/s, {size / seconds:.1f} MB/s"
    print(f"{len(index)} samples, {size:.1f} MB in {seconds:.1f} s ({speed})")
    print(f"shards and index in {index.folder}, digest {index.digest}")
