"""Painters of the ground: asphalt with markings, and paved footways with kerbs. They return albedo (n, 3), linear."""

import numpy as np

from refiner_ds.data.example.materials import linear, mix
from refiner_ds.data.example.street import BLOCK_METRES, CROSSING_METRES, KERB, LANE_METRES, has_crossing
from refiner_ds.data.example.surface import Surface

from . import noise

_ASPHALT = np.array(linear("6c6b6b"), np.float32)
_PARKING = np.array(linear("7b7571"), np.float32)
_PAINT = np.array(linear("e6e4da"), np.float32)
_SLAB = np.array(linear("a59e93"), np.float32)
_KERBSTONE = np.array(linear("b7b2a8"), np.float32)
_IRON = np.array(linear("47443f"), np.float32)


def paint_road(hits: Surface, seed: int) -> np.ndarray:
    """Asphalt with patches, cracks and wheel tracks; centre dashes, parking bays, stop lines and zebra crossings."""
    x, z = hits.x, hits.z
    near = np.clip(1.1 - hits.depth / 22.0, 0.0, 1.0)
    value = 0.86 + 0.30 * noise.smooth("cloud", x * 0.05, z * 0.021)
    value += near * 0.34 * (noise.nearest("grain", x * 0.13, z * 0.13) - 0.5)
    track = np.minimum(np.abs(np.abs(x) - 0.75), np.abs(np.abs(x + LANE_METRES) - 0.75))
    value *= 1 - 0.09 * np.exp(-((track / 0.3) ** 2))
    patch = noise.cell_hash(np.floor(x / 1.55), np.floor(z / 4.3)) > 0.86
    value *= 1 - 0.16 * patch
    crack = np.abs(noise.smooth("cloud", x * 0.06 + 0.3, z * 0.045) - 0.5) < 0.006 * near
    value *= 1 - 0.45 * crack
    colour = _ASPHALT * value[:, None]
    bays = (x > KERB[1] - 2.15) | (x < KERB[-1] + 2.15)
    setts = ((x / 0.16) % 1.0 < 0.1) | ((z / 0.16) % 1.0 < 0.1)
    colour = mix(colour, _PARKING * (value * (1 - 0.25 * setts * near))[:, None], bays & ~_in_crossing(seed, z))
    wear = 0.35 + 0.65 * noise.step(0.32, 0.5, noise.smooth("cloud", x * 0.31, z * 0.23))
    colour = mix(colour, _PAINT, _markings(x, z, seed) * wear * 0.92)
    return _iron(colour, x, z)


def _in_crossing(seed: int, z: np.ndarray) -> np.ndarray:
    """Where a side street joins."""
    block = np.floor(z / BLOCK_METRES).astype(np.int64)
    first, last = (int(block.min()), int(block.max())) if len(block) else (0, 0)
    mouths = np.array([has_crossing(seed, number) for number in range(first, last + 1)])
    return mouths[block - first] & (z % BLOCK_METRES < CROSSING_METRES)


def _markings(x: np.ndarray, z: np.ndarray, seed: int) -> np.ndarray:
    """Where the road is painted white, as a boolean (n,)."""
    middle = -LANE_METRES / 2
    mouth = _in_crossing(seed, z)
    dashes = (np.abs(x - middle) < 0.07) & (z % 6.0 < 3.0)
    edges = (np.abs(x - (KERB[1] - 2.2)) < 0.05) | (np.abs(x - (KERB[-1] + 2.2)) < 0.05)
    bars = (((x > KERB[1] - 2.2) | (x < KERB[-1] + 2.2)) & (np.abs(z % 5.9 - 0.6) < 0.05)) & (np.abs(x) < 20)
    offset = z % BLOCK_METRES
    zebra = (np.abs(offset - CROSSING_METRES - 2.2) < 1.5) & ((x % 1.0) < 0.5) & _in_crossing(seed, z - 4.2)
    stop = (np.abs(offset - (BLOCK_METRES - 1.2)) < 0.18) & (x > middle) & (x < KERB[1] - 2.2)
    lines = (dashes | edges | bars) & ~mouth & ~_in_crossing(seed, z - 4.5)
    return lines | zebra | (stop & _in_crossing(seed, z + 3.0))


def _iron(colour: np.ndarray, x: np.ndarray, z: np.ndarray) -> np.ndarray:
    """Manhole covers in the lanes and gullies at the kerb."""
    cover = (x - 0.35) ** 2 + (z % 26.0 - 17.0) ** 2
    ring = (cover < 0.115) & ((cover > 0.085) | (((x * 11) % 1.0 < 0.5) ^ ((z * 11) % 1.0 < 0.5)))
    colour = mix(colour, _IRON, (cover < 0.115) * 0.6)
    colour = mix(colour, _IRON * 0.5, ring * 0.6)
    gully = (np.abs(x - KERB[1] + 0.25) < 0.2) & (np.abs(z % 17.0 - 3.0) < 0.25)
    return mix(colour, _IRON * 0.4, gully & ((z * 14) % 1.0 < 0.6))


def paint_pavement(hits: Surface) -> np.ndarray:
    """Kerbstones, slabs in running bond, a strip of small setts before the houses; grass far behind them."""
    x, z = hits.x, hits.z
    from_kerb = np.where(x > 0, x - KERB[1], KERB[-1] - x)
    near = np.clip(1.15 - hits.depth / 26.0, 0.0, 1.0)
    size = np.where(from_kerb < 1.0, 0.2, 0.5)
    row = np.floor(from_kerb / size)
    along = z / size + 0.5 * (row % 2)
    slab = noise.cell_hash(row, np.floor(along))
    joint = (from_kerb % size < 0.022) | ((along % 1.0) * size < 0.022)
    stain = noise.smooth("cloud", x * 0.07, z * 0.05)
    value = 0.8 + 0.34 * stain + near * (0.16 * (slab - 0.5) - 0.28 * joint)
    value += near * 0.14 * (noise.nearest("grain", x * 0.15, z * 0.15) - 0.5)
    colour = _SLAB * np.where(from_kerb < 1.0, 0.82, 1.0)[:, None] * value[:, None]
    stone = from_kerb < 0.16
    colour = mix(colour, _KERBSTONE * (value - 0.3 * (z % 1.0 < 0.025) * near)[:, None], stone)
    return mix(colour, np.array(linear("66743f"), np.float32) * value[:, None], from_kerb > 5.2)
