"""Repeatable noise for the textures: two seamless tiles and an integer hash. No geometry and no colour here."""

from functools import cache

import numpy as np

TILE = 512
BLOCK = 128
_FAR = 4096.0  # keeps coordinates positive, so that truncation is the floor


@cache
def tile(kind: str) -> np.ndarray:
    """A seamless noise picture (TILE, TILE) float32 in [0, 1]: "cloud" has a 1/f spectrum, "grain" is nearly white."""
    rng = np.random.default_rng([20230808, len(kind)])
    spectrum = np.fft.rfft2(rng.standard_normal((TILE, TILE)))
    fy, fx = np.fft.fftfreq(TILE)[:, None], np.fft.rfftfreq(TILE)[None, :]
    radius = np.maximum(np.hypot(fy, fx), 1.0 / TILE)
    spectrum *= radius ** (-1.5 if kind == "cloud" else -0.35)
    spectrum[0, 0] = 0.0
    picture = np.fft.irfft2(spectrum, s=(TILE, TILE))
    return np.clip(0.5 + picture / (4.4 * picture.std()), 0.0, 1.0).astype(np.float32)


def nearest(kind: str, u: np.ndarray, v: np.ndarray) -> np.ndarray:
    """Noise in [0, 1] at (u, v), counted in whole tiles, without interpolation: fast, for fine grain."""
    column = ((u + _FAR) * TILE).astype(np.int32) & (TILE - 1)
    row = ((v + _FAR) * TILE).astype(np.int32) & (TILE - 1)
    return tile(kind).ravel()[(row << 9) | column]


def smooth(kind: str, u: np.ndarray, v: np.ndarray) -> np.ndarray:
    """Noise in [0, 1] at (u, v), counted in whole tiles, interpolated linearly: for stains, clouds and shadows."""
    u, v = (u + _FAR) * TILE, (v + _FAR) * TILE
    column, row = u.astype(np.int32), v.astype(np.int32)
    a, b = (u - column).astype(np.float32), (v - row).astype(np.float32)
    left, right = column & (TILE - 1), (column + 1) & (TILE - 1)
    top, bottom = (row & (TILE - 1)) << 9, ((row + 1) & (TILE - 1)) << 9
    flat = tile(kind).ravel()
    upper = flat[top | left] * (1 - a) + flat[top | right] * a
    lower = flat[bottom | left] * (1 - a) + flat[bottom | right] * a
    return upper * (1 - b) + lower * b


@cache
def _block() -> np.ndarray:
    """A seamless noise block (BLOCK, BLOCK, BLOCK) float32 in [0, 1]."""
    spectrum = np.fft.rfftn(np.random.default_rng(20230808).standard_normal((BLOCK,) * 3))
    axis = np.fft.fftfreq(BLOCK)
    squares = axis[:, None, None] ** 2 + axis[None, :, None] ** 2 + np.fft.rfftfreq(BLOCK)[None, None, :] ** 2
    spectrum *= np.maximum(squares, 1.0 / BLOCK**2) ** -0.6
    spectrum[0, 0, 0] = 0.0
    block = np.fft.irfftn(spectrum, s=(BLOCK,) * 3, axes=(0, 1, 2))
    return np.clip(0.5 + block / (4.4 * block.std()), 0.0, 1.0).astype(np.float32)


def solid(x: np.ndarray, y: np.ndarray, z: np.ndarray) -> np.ndarray:
    """Noise in [0, 1] in space at (x, y, z), counted in whole blocks, without interpolation: for leaves."""
    cells = [((axis + _FAR) * BLOCK).astype(np.int32) & (BLOCK - 1) for axis in (x, y, z)]
    return _block().ravel()[(cells[0] * BLOCK + cells[1]) * BLOCK + cells[2]]


def cell_hash(*cells: np.ndarray) -> np.ndarray:
    """A value in [0, 1) float32 for every tuple of whole numbers: one window, one brick, one paving slab."""
    mixed = np.full(1, 2166136261, np.uint32)
    for index, cell in enumerate(cells):
        number = np.asarray(cell).astype(np.int32).view(np.uint32)
        mixed = (mixed ^ (number + np.uint32(97 * index + 1))) * np.uint32(2654435761)
        mixed = mixed ^ (mixed >> np.uint32(15))
    return np.asarray(((mixed >> np.uint32(8)) & np.uint32(0xFFFF)).astype(np.float32) / np.float32(65536))


def step(edge0: float, edge1: float, x: np.ndarray) -> np.ndarray:
    """The smooth step from 0 at edge0 to 1 at edge1."""
    t = np.clip((x - edge0) * (1.0 / (edge1 - edge0)), 0.0, 1.0)
    return t * t * (3 - 2 * t)
