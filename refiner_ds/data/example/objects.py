"""Painters of cars, leaves, posts and awnings. They return albedo (n, 3), linear."""

import numpy as np

from refiner_ds.data.example.materials import PALETTE, CarLook, TintLook, linear, mix, rows
from refiner_ds.data.example.surface import Surface

from . import noise

_GLASS = np.array(linear("2c363d"), np.float32)
_SHINE = np.array(linear("b9cbd9"), np.float32)
_BLACK = np.array(linear("1d1d1f"), np.float32)
_CHROME = np.array(linear("a9adb0"), np.float32)
_HEADLAMP = np.array(linear("f2f2ea"), np.float32)
_TAIL_LAMP = np.array(linear("a3161a"), np.float32)
_PLATE = np.array(linear("e9e6da"), np.float32)


def paint_bodywork(hits: Surface, table: np.ndarray) -> np.ndarray:
    """The lower body: paint that mirrors the sky from above, wheel arches, door gaps, lamps, grille and plates."""
    look = rows(CarLook, table, hits.solid)
    ahead, across = (hits.z - look.z) * look.heading, np.abs(hits.x - look.x)
    colour = PALETTE[look.colour.astype(np.int32)]
    colour = mix(colour, _SHINE, 0.05 + 0.30 * np.maximum(hits.normal[1], 0.0) ** 2)
    side = np.abs(hits.normal[0]) > 0.7
    wheel = np.hypot(np.abs(ahead) - look.wheel_base, hits.y - 0.32)
    seam = (np.abs(ahead - 0.62) < 0.014) | (np.abs(ahead + 0.38) < 0.014) | (np.abs(ahead + 1.25) < 0.014)
    colour = mix(colour, _BLACK, side & seam & (hits.y > 0.36) & (wheel > 0.45))
    handle = (np.abs(hits.y - look.belt + 0.17) < 0.02) & ((np.abs(ahead + 0.2) < 0.09) | (np.abs(ahead + 1.07) < 0.09))
    colour = mix(colour, _BLACK, side & handle)
    colour = mix(colour, _BLACK, side & ((wheel < 0.39) | (hits.y < 0.33)))
    nose = (ahead > look.half_length - 0.24) & ~side
    tail = (ahead < -look.half_length + 0.24) & ~side
    lamp = (across > look.half_width - 0.34) & (across < look.half_width - 0.05)
    colour = mix(colour, _HEADLAMP, nose & lamp & (np.abs(hits.y - 0.66) < 0.07))
    colour = mix(colour, _TAIL_LAMP, tail & lamp & (np.abs(hits.y - look.belt + 0.2) < 0.11))
    colour = mix(colour, _BLACK, nose & (across < 0.42) & (np.abs(hits.y - 0.52) < 0.1))
    colour = mix(colour, _BLACK, (nose | tail) & (hits.y < 0.38))
    height = np.where(nose, 0.46, 0.68)
    return mix(colour, _PLATE, (nose | tail) & (across < 0.26) & (np.abs(hits.y - height) < 0.055))


def paint_cabin(hits: Surface, table: np.ndarray) -> np.ndarray:
    """Windows between painted pillars under a painted roof; glass mirrors the sky towards its top."""
    look = rows(CarLook, table, hits.solid)
    ahead, across = (hits.z - look.z) * look.heading, np.abs(hits.x - look.x)
    body = mix(PALETTE[look.colour.astype(np.int32)], _SHINE, 0.06 + 0.30 * np.maximum(hits.normal[1], 0.0) ** 2)
    up = (hits.y - look.belt) / (look.roof - look.belt)
    glass = mix(_GLASS * np.float32(0.75), _SHINE, np.clip(0.05 + 0.42 * up * up, 0.0, 0.5))
    side = np.abs(hits.normal[0]) > 0.7
    lean = ahead + 0.25 * (up - 0.5)
    pillar = (np.abs(lean - 0.12 * look.half_length) < 0.035) | (np.abs(ahead + 0.58 * look.half_length) < 0.05)
    pillar = side & (pillar | (up < 0.1) | (up > 0.86))
    screen = ~side & (across > look.half_width - 0.13 - 0.3 * (hits.y - look.belt))
    colour = mix(glass, body, pillar | (screen & (hits.normal[1] < 0.95)))
    return mix(colour, body, (hits.normal[1] > 0.9) | (up > 0.95))


def paint_wheel(hits: Surface, table: np.ndarray) -> np.ndarray:
    """A tyre around a rim with five spokes."""
    look = rows(CarLook, table, hits.solid)
    ahead, up = np.abs(hits.z - look.z) - look.wheel_base, hits.y - 0.32
    radius, turn = np.hypot(ahead, up), np.arctan2(up, ahead)
    spoke = np.cos(5 * turn + look.salt) > -0.1
    rim = (np.abs(hits.normal[0]) > 0.7) & (radius < 0.21) & (spoke | (radius < 0.06) | (radius > 0.185))
    return mix(np.broadcast_to(_BLACK * 1.3, (len(radius), 3)), _CHROME, rim)


def paint_leaves(hits: Surface, table: np.ndarray) -> np.ndarray:
    """Leaves: darker inside and below, brighter in clumps; hue shifts from clump to clump."""
    look = rows(TintLook, table, hits.solid)
    colour = PALETTE[look.colour.astype(np.int32)]
    clump = noise.solid(hits.x * 0.12, hits.y * 0.12, hits.z * 0.12)
    leaf = noise.solid(hits.x * 0.37, hits.y * 0.37, hits.z * 0.37)
    lift = np.clip((hits.y - look.y) / np.maximum(look.height, 0.1), -0.6, 0.6)
    near = np.clip(1.3 - hits.depth / 35.0, 0.25, 1.0)
    value = 0.62 + 0.7 * lift + 1.0 * (clump - 0.4) + near * 1.5 * (leaf - 0.5)
    warm = np.array([1.25, 1.05, 0.75], np.float32)
    return mix(colour, colour * warm, clump) * np.clip(value, 0.12, 1.9)[:, None]


def paint_plain(hits: Surface, table: np.ndarray) -> np.ndarray:
    """One colour, with streaks by its variation."""
    look = rows(TintLook, table, hits.solid)
    streak = noise.smooth("cloud", (hits.x + hits.z) * 0.35, hits.y * 0.08 + look.salt * 0.1)
    value = 1 + look.variation * (streak - 0.55)
    return PALETTE[look.colour.astype(np.int32)] * np.clip(value, 0.3, 1.6)[:, None]


def paint_awning(hits: Surface, table: np.ndarray) -> np.ndarray:
    """Broad stripes, and a scalloped edge in the full colour."""
    look = rows(TintLook, table, hits.solid)
    colour = PALETTE[look.colour.astype(np.int32)] * np.float32(1.3)
    return mix(colour, _PLATE, ((hits.z % 0.7) < 0.35) & (hits.y > look.y + 0.02))
