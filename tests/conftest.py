"""What all tests share: small datasets made on the fly, packed shards, and the command line as a person starts it."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

# before torch is imported: the tests run beside other work, and nothing may be fetched from anywhere
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

import numpy as np
import pytest
from PIL import Image, ImageChops, ImageFilter

from refiner_ds.data.index import Dataset, Index
from refiner_ds.data.manifest import read_manifest
from refiner_ds.data.pack import Recipe, pack
from refiner_ds.refiners.unclip.base import TINY, make_parts, save_base

WIDE, SQUARE = (96, 64), (72, 72)
"""Frame shapes of `shards`: one of each bucket of "1.0:64x64,1.5:96x64"."""


def photograph(width: int, height: int, seed: int) -> Image.Image:
    """A smooth picture of width x height pixels; another seed is another picture."""
    coarse = np.random.default_rng(seed).integers(0, 256, (5, 7, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)


def write_dataset(folder: Path, sizes: Sequence[tuple[int, int]], seed: int = 0) -> Path:
    """Writes FOLDER/{render,gt,cond}/NNN.png, one triplet for each (width, height), and returns their manifest's path.

    gt is a photograph, cond the same shifted by three pixels, render the same blurred.
    """
    lists: dict[str, list[str]] = {"render": [], "gt": [], "cond": []}
    for number, (width, height) in enumerate(sizes):
        gt = photograph(width, height, seed * 1000 + number)
        views = {"render": gt.filter(ImageFilter.GaussianBlur(2)), "gt": gt, "cond": ImageChops.offset(gt, 3, 0)}
        for view, picture in views.items():
            (folder / view).mkdir(parents=True, exist_ok=True)
            picture.save(folder / view / f"{number:03d}.png")
            lists[view].append(f"{view}/{number:03d}.png")
    manifest = folder / "manifest.json"
    manifest.write_text(json.dumps(lists))
    return manifest


@pytest.fixture(scope="session")
def dataset() -> Callable[..., Path]:
    """`dataset(folder, sizes, seed=0)` writes a small dataset and returns its manifest, see `write_dataset`."""
    return write_dataset


@pytest.fixture(scope="session")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The manifest of 24 triplets, two wide ones for each square one. Tests only read it."""
    return write_dataset(tmp_path_factory.mktemp("dataset"), [WIDE, SQUARE, WIDE] * 8)


@pytest.fixture(scope="session")
def shards(manifest: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`manifest` packed with --val 4: several shards, 20 samples to train on, 13 of them wide. Tests only read it."""
    folder = tmp_path_factory.mktemp("packed") / "shards"
    packed(manifest, folder, val=4, shard_size=150_000)
    return folder


def packed(manifest: Path, out: Path, val: int = 1, shard_size: int = 1 << 29, workers: int = 1, **recipe) -> Index:
    """Packs a manifest, of which the last `val` samples are held out."""
    samples = read_manifest(manifest)
    splits = ["train"] * (len(samples) - val) + ["val"] * val
    datasets = [Dataset("test", 1.0, str(manifest), len(samples))]
    return pack(samples, splits, datasets, out, Recipe(shard_size=shard_size, **recipe), workers)


@pytest.fixture(scope="session")
def pack_dataset() -> Callable[..., Index]:
    """`pack_dataset(manifest, out, val=1, shard_size=..., workers=1, order=..., ...)` packs and returns the index."""
    return packed


@pytest.fixture(scope="session")
def refiner_ds_command() -> Callable[..., subprocess.CompletedProcess[str]]:
    """`refiner_ds_command(*arguments, timeout=120, cwd=None, **environment)` runs the command line as a process."""

    def run(*arguments: object, timeout: float = 120, cwd: Path | None = None, **environment: str):
        return subprocess.run(
            [sys.executable, "-m", "refiner_ds", *map(str, arguments)],
            env={**os.environ, "COLUMNS": "100", **environment},
            cwd=cwd,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )

    return run


@pytest.fixture(scope="session")
def tiny_base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny base checkpoint with random weights, its VAE untrained. Tests only read it."""
    folder = tmp_path_factory.mktemp("base") / "tiny"
    save_base(make_parts(TINY, 0, folder), folder)
    return folder
