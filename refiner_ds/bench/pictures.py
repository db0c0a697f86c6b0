"""Synthetic triplets with the entropy of street photographs, about a second each: flat shapes, fine structure, noise.

Of 1408x376 pixels, a picture takes 0.72 MB as PNG and 0.20 MB as JPEG of quality 95, as the frames of a drive do. They
show nothing: `refiner-ds example` draws streets, at the cost of a ray cast each.
"""

import os
from pathlib import Path

import numpy as np
from PIL import Image

from refiner_ds.data.manifest import VIEWS, Sample
from refiner_ds.data.packing.crew import Tell, crew_of

WIDTH, HEIGHT = 1408, 376
"""Pixels of a picture."""
DISTINCT = 24
"""Triplets that are drawn; the samples of a bench are these in turn, as coding them as PNG takes longest."""
OCTAVES = ((4, 40), (16, 20), (64, 10), (256, 7), (704, 4))
"""Cells that a picture is wide, and the standard deviation of what they add."""
SHAPES, SHAPE_CONTRAST, NOISE = 120, 25, 1.5
"""Rectangles, how much they differ from what is behind them, and the noise of the camera, which no coder can save."""


def write_triplets(folder: Path, tell: Tell, count: int = DISTINCT) -> list[Sample]:
    """Writes FOLDER/NUMBER.VIEW.png for `count` triplets and returns them; the same ones at any time."""
    folder.mkdir(parents=True)
    samples = []
    with crew_of(os.cpu_count() or 1) as crew:
        jobs = ((folder, number) for number in range(count))
        for sample in crew.results(_write_triplet, jobs):
            samples.append(sample)
            tell("drawing", len(samples), count, 0)
    return samples


def _write_triplet(job: tuple[Path, int]) -> Sample:
    folder, number = job
    chance = np.random.default_rng(number)
    scene, files = _scene(chance), {}
    for view in VIEWS:
        noisy = scene + chance.normal(0, NOISE, scene.shape)
        files[view] = folder / f"{number:04d}.{view}.png"
        Image.fromarray(np.clip(noisy, 0, 255).astype(np.uint8)).save(files[view])
    return Sample(files, {view: str(path) for view, path in files.items()})


def _scene(chance: np.random.Generator) -> np.ndarray:
    """(H, W, 3) float: octaves of smooth noise, mostly grey, behind rectangles."""
    scene = np.full((HEIGHT, WIDTH, 3), 110.0)
    for cells, contrast in OCTAVES:
        coarse = chance.normal(0, 1, (HEIGHT * cells // WIDTH + 2, cells, 3)).astype(np.float32)
        coarse = 0.8 * coarse.mean(axis=2, keepdims=True) + 0.2 * coarse
        for channel in range(3):
            fine = Image.fromarray(coarse[..., channel]).resize((WIDTH, HEIGHT), Image.Resampling.BICUBIC)
            scene[..., channel] += contrast * np.asarray(fine)
    for _ in range(SHAPES):
        x, y = chance.integers(WIDTH), chance.integers(HEIGHT)
        right, bottom = x + chance.integers(4, WIDTH // 8), y + chance.integers(4, HEIGHT // 3)
        scene[y:bottom, x:right] += chance.normal(0, SHAPE_CONTRAST, 3)
    return scene
