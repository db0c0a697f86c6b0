"""The street as a whole: blocks of houses, parked cars and trees that go on for ever, drawn from the seed alone."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from refiner_ds.data.example.cars import make_car
from refiner_ds.data.example.houses import make_house
from refiner_ds.data.example.materials import Material, TintLook, number
from refiner_ds.data.example.planting import make_hedge, make_lamp, make_sign, make_tree
from refiner_ds.data.example.solids import Solid, box

BLOCK_METRES = 52.0
CROSSING_METRES = 9.0
PAVEMENT_METRES = 0.13
LANE_METRES = 3.1
KERB = {1: 3.9, -1: -7.0}  # x of the kerb by side, metres; the camera's lane is centred on x = 0
FRONT = {1: 7.2, -1: -10.4}  # x of the facades by side
SHADOW_METRES = 44.0  # houses this far behind the camera still throw shadows before it
_AHEAD = 230.0


@dataclass(frozen=True)
class Mood:
    """What a seed gives the whole street: leaves, the sun's direction (towards it), cloudiness in [0, 1], warmth."""

    leaves: str
    sun: tuple[float, float, float]
    clouds: float
    warmth: float
    trees: float


@lru_cache(maxsize=16)
def mood_of(seed: int) -> Mood:
    """The mood of the street of `seed`."""
    rng = np.random.default_rng([seed, 1])
    side, height = rng.choice([-1.0, 1.0]), np.radians(rng.uniform(36, 52))
    ahead = rng.uniform(-0.75, 0.1)
    across = np.sqrt(1 - ahead**2)
    sun = (float(side * across * np.cos(height)), float(np.sin(height)), float(ahead * np.cos(height)))
    leaves = "autumn" if rng.random() < 0.25 else "leaf"
    return Mood(leaves, sun, float(rng.uniform(0.25, 0.75)), float(rng.uniform(0, 1)), float(rng.uniform(0.35, 0.8)))


def has_crossing(seed: int, block: int) -> bool:
    """Whether a side street opens the block; its mouth is the block's first CROSSING_METRES."""
    return bool(np.random.default_rng([seed, 2, block + 64]).random() < 0.55)


@lru_cache(maxsize=64)
def block_solids(seed: int, block: int) -> tuple[Solid, ...]:
    """Everything that stands still between z = block * BLOCK_METRES and the next block."""
    start = block * BLOCK_METRES
    opening = start + (CROSSING_METRES if has_crossing(seed, block) else 0.0)
    parts: list[Solid] = []
    for side in (-1, 1):
        rng = np.random.default_rng([seed, 3, block + 64, side + 1])
        parts += _pavement(side, opening, start + BLOCK_METRES)
        parts += _row_of_houses(rng, seed, side, opening, start + BLOCK_METRES)
        parts += _kerbside(rng, seed, side, opening, start + BLOCK_METRES)
        if opening > start:
            far = FRONT[side] + side * 24.0
            parts += make_house(rng, side, far, start - 4.0, CROSSING_METRES + 10.0)
            parts += make_tree(rng, far - side * 5.0, start + CROSSING_METRES * 0.5, mood_of(seed).leaves, 1.3)
    return tuple(parts)


def _pavement(side: int, start: float, end: float) -> list[Solid]:
    x = sorted((KERB[side], KERB[side] + side * 60.0))
    return [box((x[0], 0.0, start), (x[1], PAVEMENT_METRES, end), Material.PAVEMENT, ())]


def _row_of_houses(rng: np.random.Generator, seed: int, side: int, start: float, end: float) -> list[Solid]:
    parts: list[Solid] = []
    at = start
    while end - at > 5.0:
        width = float(rng.uniform(8.0, 14.0))
        width = end - at if end - at - width < 7.0 else width
        front = FRONT[side] + side * float(rng.choice([0.0, 0.0, 0.5, 1.2]))
        if width > 9.0 and rng.random() < 0.16:
            parts += make_hedge(rng, FRONT[side] + side * 0.8, (at, at + width), mood_of(seed).leaves)
            parts += make_tree(rng, front + side * 4.0, at + width / 2, mood_of(seed).leaves, 1.5)
            parts += make_house(rng, side, FRONT[side] + side * 22.0, at - 3.0, width + 8.0)
        else:
            parts += make_house(rng, side, front, at, width)
        at += width
    return parts


def _kerbside(rng: np.random.Generator, seed: int, side: int, start: float, end: float) -> list[Solid]:
    mood, parts = mood_of(seed), []
    at = start + 6.5
    while at < end - 5.0:
        if rng.random() < 0.62:
            x = KERB[side] - side * (1.08 + float(rng.uniform(-0.1, 0.1)))
            parts += make_car(rng, x, at + float(rng.uniform(-0.3, 0.3)), side if rng.random() < 0.93 else -side)
        at += 5.9
    line = KERB[side] + side * 0.7
    for slot in np.arange(start + 4.0, end - 2.0, 9.5):
        if rng.random() < mood.trees:
            parts += make_tree(rng, line, slot + float(rng.uniform(-0.6, 0.6)), mood.leaves)
    lamp = start + 8.6 + (13.0 if side < 0 else 0.0)
    parts += make_lamp(rng, side, KERB[side] + side * 0.45, lamp)
    if rng.random() < 0.6:
        parts += make_sign(rng, KERB[side] + side * 0.5, start + 2.2)
    return parts


def _traffic(seed: int, index: int, z: float) -> list[Solid]:
    """One car ahead in the camera's lane, and oncoming ones, all moving from frame to frame."""
    rng = np.random.default_rng([seed, 4])
    gap = 19.0 + 7.0 * np.sin(index / 21.0 + rng.uniform(0, 6))
    parts = make_car(rng, float(rng.uniform(-0.15, 0.15)), z + gap, 1)
    phase = rng.uniform(0, 124.0)
    for slot in range(4):
        ahead = (phase + slot * 31.0 - index * 1.5) % 124.0
        parts += make_car(rng, -LANE_METRES + float(rng.uniform(-0.1, 0.1)), z + ahead - 8.0, -1)
    return parts


def solids_of(seed: int, index: int, z: float) -> Sequence[Solid]:
    """All solids around a camera at `z` in frame `index`; the first is the road."""
    road = TintLook(number("metal"), 0.0, 0, 0.0, 0.0)
    ground = box((-80.0, -1.0, z - 5.0), (80.0, 0.0, z + 400.0), Material.ROAD, road)
    parts = [ground]
    for block in range(int((z - SHADOW_METRES) // BLOCK_METRES), int((z + _AHEAD) // BLOCK_METRES) + 1):
        parts += [solid for solid in block_solids(seed, block) if solid.high[2] > z - _reach_behind(solid)]
    return parts + _traffic(seed, index, z)


def _reach_behind(solid: Solid) -> float:
    """How far behind the camera a solid still matters, metres."""
    return SHADOW_METRES if solid.paint[0] is Material.WALL else 6.0
