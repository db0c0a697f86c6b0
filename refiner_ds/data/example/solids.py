"""Convex solids, the only shape of the street: half-spaces, optionally met with one quadric. No colours, no rays."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from refiner_ds.data.example.materials import Material

MAX_FACES = 12
QUADRIC_FACE = MAX_FACES - 1


@dataclass(frozen=True)
class Solid:
    """The points p with n.p <= d for every row (n, d) of `planes`, inside `quadric` where there is one.

    `quadric` is (centre, weights): sum(weights * (p - centre)**2) <= 1. `paint` names a material for each plane, and
    its last is the quadric's. `look` is the material's row of numbers. `low` and `high` bound the solid, metres.
    `ragged` in [0, 1] lets rays slip through the rim of a quadric, as between leaves.
    """

    planes: np.ndarray
    paint: tuple[Material, ...]
    look: tuple[float, ...]
    low: tuple[float, float, float]
    high: tuple[float, float, float]
    quadric: tuple[np.ndarray, np.ndarray] | None = None
    ragged: float = 0.0


Triple = tuple[float, float, float]


def box(low: Triple, high: Triple, paint: Material, look: Sequence[float]) -> Solid:
    """An upright box from `low` to `high`, metres."""
    planes = np.zeros((6, 4))
    for axis in range(3):
        planes[2 * axis, axis], planes[2 * axis, 3] = 1.0, high[axis]
        planes[2 * axis + 1, axis], planes[2 * axis + 1, 3] = -1.0, -low[axis]
    return Solid(planes, (paint,) * 7, tuple(look), low, high)


def prism(
    profile: Sequence[tuple[float, float]],
    x: tuple[float, float],
    paint: Material,
    look: Sequence[float],
    taper: float = 0.0,
) -> Solid:
    """A convex profile of (z, y) corners in order, pulled along x; `taper` leans the sides in, metres per metre."""
    corners = np.asarray(profile, dtype=float)
    middle, rows = corners.mean(axis=0), []
    for start, end in zip(corners, np.roll(corners, -1, axis=0), strict=True):
        along = end - start
        if not along.any():
            continue
        normal = np.array([along[1], -along[0]]) / np.hypot(*along)
        normal = normal if normal @ (start - middle) > 0 else -normal
        rows.append([0.0, normal[1], normal[0], normal @ start])
    base, scale = corners[:, 1].min(), float(np.hypot(1.0, taper))
    rows.append([1 / scale, taper / scale, 0.0, (x[1] + taper * base) / scale])
    rows.append([-1 / scale, taper / scale, 0.0, (-x[0] + taper * base) / scale])
    low = (x[0], float(corners[:, 1].min()), float(corners[:, 0].min()))
    high = (x[1], float(corners[:, 1].max()), float(corners[:, 0].max()))
    return Solid(np.array(rows), (paint,) * (len(rows) + 1), tuple(look), low, high)


def ellipsoid(centre: Triple, radii: Triple, paint: Material, look: Sequence[float], ragged: float = 0.0) -> Solid:
    """An ellipsoid with its axes along the world's, metres."""
    middle, reach = np.array(centre), np.array(radii)
    low, high = middle - reach, middle + reach
    quadric = (middle, 1.0 / reach**2)
    return Solid(np.zeros((0, 4)), (paint,), tuple(look), tuple(low), tuple(high), quadric, ragged)


def cylinder(centre: Triple, radius: float, half: float, axis: int, paint: Material, look: Sequence[float]) -> Solid:
    """A cylinder around world axis 0 (x), 1 (y) or 2 (z), `half` metres to either side of its centre."""
    middle, reach = np.array(centre), np.full(3, radius)
    reach[axis] = half
    planes = np.zeros((2, 4))
    planes[0, axis], planes[0, 3] = 1.0, middle[axis] + half
    planes[1, axis], planes[1, 3] = -1.0, half - middle[axis]
    weights = np.full(3, 1.0 / radius**2)
    weights[axis] = 0.0
    low, high = middle - reach, middle + reach
    return Solid(planes, (paint,) * 3, tuple(look), tuple(low), tuple(high), (middle, weights))
