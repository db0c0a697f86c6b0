"""Trees, hedges, lamp posts and signs: the upright things between kerb and facade."""

import numpy as np

from refiner_ds.data.example.materials import Material, TintLook, number, pick
from refiner_ds.data.example.solids import Solid, box, cylinder, ellipsoid


def make_tree(rng: np.random.Generator, x: float, z: float, leaves: str, size: float = 1.0) -> list[Solid]:
    """A street tree: a trunk, and a crown of a few ragged ellipsoids around one middle."""
    clear, spread = rng.uniform(2.3, 2.9) * size, rng.uniform(1.25, 1.7) * size
    bark = TintLook(pick(rng, "bark"), 0.9, int(rng.integers(1 << 12)), 0.0, clear)
    parts = [cylinder((x, clear / 2 + 0.3, z), 0.13 * size, clear / 2 + 0.3, 1, Material.PLAIN, bark)]
    colour, salt = pick(rng, leaves), int(rng.integers(1 << 12))
    middle = clear + spread * 0.95
    tint = TintLook(colour, 1.0, salt, middle, 2 * spread)
    parts.append(ellipsoid((x, middle, z), (spread * 0.85, spread, spread * 0.85), Material.LEAVES, tint, 0.9))
    for turn in rng.uniform(0, 2 * np.pi) + np.arange(9) * 2.4:
        reach, lift = rng.uniform(0.5, 0.85) * spread, rng.uniform(-0.5, 0.95) * spread
        reach *= np.sqrt(1.1 - (lift / spread) ** 2)
        radius = rng.uniform(0.38, 0.6) * spread
        centre = (x + reach * np.cos(turn), middle + lift, z + reach * np.sin(turn))
        parts.append(ellipsoid(centre, (radius, radius * 0.9, radius), Material.LEAVES, tint, 1.0))
    return parts


def make_hedge(rng: np.random.Generator, x: float, z: tuple[float, float], leaves: str) -> list[Solid]:
    """A row of bushes from z[0] to z[1]."""
    parts, at = [], z[0] + 0.6
    tint = TintLook(pick(rng, leaves), 1.0, int(rng.integers(1 << 12)), 0.8, 1.8)
    while at < z[1] - 0.4:
        radius = rng.uniform(0.7, 1.0)
        parts.append(ellipsoid((x, 0.7, at), (radius, radius + 0.15, radius), Material.LEAVES, tint, 0.7))
        at += radius * 1.25
    return parts


def make_lamp(rng: np.random.Generator, side: int, x: float, z: float) -> list[Solid]:
    """A lamp post with an arm that reaches over the road."""
    tint = TintLook(pick(rng, "metal"), 0.15, 0, 0.0, 6.0)
    arm = sorted((x, x - side * 1.3))
    head = sorted((x - side * 1.15, x - side * 1.75))
    return [
        cylinder((x, 3.1, z), 0.065, 3.1, 1, Material.PLAIN, tint),
        cylinder((x, 0.45, z), 0.1, 0.45, 1, Material.PLAIN, tint),
        box((arm[0], 6.12, z - 0.04), (arm[1], 6.2, z + 0.04), Material.PLAIN, tint),
        box((head[0], 6.08, z - 0.13), (head[1], 6.22, z + 0.13), Material.PLAIN, tint),
    ]


def make_sign(rng: np.random.Generator, x: float, z: float) -> list[Solid]:
    """A traffic sign on a pole, facing the driver."""
    pole = TintLook(number("metal", 2), 0.1, 0, 0.0, 2.5)
    plate = TintLook(number("sign", int(rng.integers(2))), 0.05, 0, 0.0, 2.5)
    rim = TintLook(number("trim"), 0.05, 0, 0.0, 2.5)
    return [
        cylinder((x, 1.3, z), 0.035, 1.3, 1, Material.PLAIN, pole),
        cylinder((x, 2.4, z - 0.05), 0.32, 0.01, 2, Material.PLAIN, rim),
        cylinder((x, 2.4, z - 0.06), 0.285, 0.01, 2, Material.PLAIN, plate),
        box((x - 0.2, 2.36, z - 0.08), (x + 0.2, 2.44, z - 0.07), Material.PLAIN, rim),
    ]
