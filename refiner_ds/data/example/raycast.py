"""The ray caster: which solid, which face and how far, for every sample of a view. Colours are mixed elsewhere.

Works in inverse depth: along a row or a column 1/depth of a plane is linear, so a half-space costs one addition and one
comparison per sample, with no division.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from refiner_ds.data.example.camera import Camera
from refiner_ds.data.example.solids import QUADRIC_FACE, Solid

from . import noise

NEAR_METRES = 0.3
_CORNERS = np.array([[i & 1, (i >> 1) & 1, (i >> 2) & 1] for i in range(8)])
_EDGES = np.array([(a, b) for a in range(8) for b in range(a + 1, 8) if bin(a ^ b).count("1") == 1])


@dataclass(frozen=True)
class Hits:
    """First hits of a view: `inverse` (height, width) float32, 1/depth in 1/metres, 0 for sky; `solid` int16, -1 for
    sky; `face` int8, the number of the plane or QUADRIC_FACE."""

    inverse: np.ndarray
    solid: np.ndarray
    face: np.ndarray


def cast(solids: Sequence[Solid], camera: Camera) -> Hits:
    """Finds the first solid along the ray of every pixel of `camera`."""
    shape = (camera.height, camera.width)
    hits = Hits(np.zeros(shape, np.float32), np.full(shape, -1, np.int16), np.zeros(shape, np.int8))
    rectangles, nearest = _rectangles(solids, camera)
    directions = camera.directions()
    for number in np.argsort(nearest, kind="stable"):
        x0, y0, x1, y1 = rectangles[number]
        if x1 <= x0 or y1 <= y0:
            continue
        window = np.s_[y0:y1, x0:x1]
        if hits.inverse[window].min() * nearest[number] >= 1.0:
            continue
        east, up, north = directions[0][x0:x1], directions[1][y0:y1], directions[2][x0:x1]
        inverse, face = _meet(solids[number], np.array(camera.position), east, up, north)
        closer = inverse > hits.inverse[window]
        if solids[number].ragged:
            closer &= _between_leaves(solids[number], camera, inverse, east, up, north)
        np.copyto(hits.inverse[window], inverse, where=closer)
        np.copyto(hits.solid[window], np.int16(number), where=closer)
        np.copyto(hits.face[window], face, where=closer)
    return hits


def _rectangles(solids: Sequence[Solid], camera: Camera) -> tuple[np.ndarray, np.ndarray]:
    """Pixel rectangles (solids, 4) as x0, y0, x1, y1, and the least depth of every solid's bounds, metres."""
    low, high = np.array([s.low for s in solids]), np.array([s.high for s in solids])
    corners = camera.to_camera(low[:, None] + _CORNERS * (high - low)[:, None])
    start, end = corners[:, _EDGES[:, 0]], corners[:, _EDGES[:, 1]]
    with np.errstate(divide="ignore", invalid="ignore"):
        share = (NEAR_METRES - start[..., 2]) / (end[..., 2] - start[..., 2])
    crossing = (share > 0) & (share < 1)
    cut = start + np.where(crossing, share, 0.0)[..., None] * (end - start)
    cut[..., 2] = np.where(crossing, NEAR_METRES, -1.0)
    points = np.concatenate([corners, cut], axis=1)
    front = points[..., 2] >= NEAR_METRES * 0.999
    depth = np.where(front, points[..., 2], 1.0)
    bounds = []
    for axis, centre, size in ((0, camera.cx, camera.width), (1, camera.cy, camera.height)):
        pixel = points[..., axis] / depth * camera.fx + centre
        first = np.where(front, pixel, np.inf).min(axis=1)
        last = np.where(front, pixel, -np.inf).max(axis=1)
        bounds += [np.clip(np.floor(first - 0.5), 0, size), np.clip(np.ceil(last + 0.5), 0, size)]
    rectangles = np.stack([bounds[0], bounds[2], bounds[1], bounds[3]], axis=1).astype(int)
    return rectangles, np.maximum(corners[..., 2].min(axis=1), NEAR_METRES)


def _meet(
    solid: Solid, eye: np.ndarray, east: np.ndarray, up: np.ndarray, north: np.ndarray
) -> tuple[np.ndarray, np.ndarray | np.int8]:
    """Inverse depth at which rays enter `solid` (0 where they miss) and the face they enter by, (rows, columns)."""
    shape = (len(up), len(east))
    enter, leave = np.full(shape, np.inf, np.float32), np.zeros(shape, np.float32)
    face = np.full(shape, QUADRIC_FACE, np.int8)
    if solid.quadric is not None:
        enter, leave = _meet_quadric(solid.quadric, eye, east, up, north)
    for number, (nx, ny, nz, d) in enumerate(solid.planes):
        gap = d - (nx * eye[0] + ny * eye[1] + nz * eye[2])
        gap = gap if abs(gap) > 1e-6 else 1e-6
        by_column = (nx / gap * east + nz / gap * north).astype(np.float32)
        by_row = (ny / gap * up).astype(np.float32)
        inverse = by_column[None, :] + by_row[:, None]
        if gap > 0:
            np.maximum(leave, inverse, out=leave)
        else:
            np.copyto(face, np.int8(number), where=inverse < enter)
            np.minimum(enter, inverse, out=enter)
    enter[enter <= leave] = 0.0
    enter[np.isinf(enter)] = 0.0
    return enter, face


def _meet_quadric(
    quadric: tuple[np.ndarray, np.ndarray], eye: np.ndarray, east: np.ndarray, up: np.ndarray, north: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Inverse depths of entry and exit, the roots of c s^2 + 2 b s + a = 0; entry is 0 where rays miss."""
    centre, weights = quadric
    wx, wy, wz = weights.astype(np.float32)
    ox, oy, oz = (eye - centre).astype(np.float32)
    a = (wx * east * east + wz * north * north)[None, :] + (wy * up * up)[:, None]
    b = (wx * ox * east + wz * oz * north)[None, :] + (wy * oy * up)[:, None]
    c = np.float32(wx * ox * ox + wy * oy * oy + wz * oz * oz - 1.0)
    if c <= 1e-6:
        return np.zeros_like(a), np.zeros_like(a)
    discriminant = b * b - a * c
    root = np.sqrt(np.maximum(discriminant, 0.0))
    enter = np.where(discriminant > 0, (root - b) / c, 0.0)
    return enter, np.maximum((-root - b) / c, 0.0)


def _between_leaves(
    solid: Solid, camera: Camera, inverse: np.ndarray, east: np.ndarray, up: np.ndarray, north: np.ndarray
) -> np.ndarray:
    """Where a ray meets a leaf and not a gap; gaps grow towards the rim, so that a crown has no smooth outline."""
    assert solid.quadric is not None
    centre, weights = (part.astype(np.float32) for part in solid.quadric)
    depth = 1.0 / np.maximum(inverse, 1e-4)
    x = depth * east[None, :] + np.float32(camera.position[0])
    y = depth * up[:, None] + np.float32(camera.position[1])
    z = depth * north[None, :] + np.float32(camera.position[2])
    slope = (x - centre[0]) * weights[0] * east + (z - centre[2]) * weights[2] * north
    slope = slope + (y - centre[1]) * weights[1] * up[:, None]
    length = np.sqrt(weights.max()) * np.sqrt(east * east + north * north)
    facing = np.clip(-slope / length[None, :], 0.0, 1.0)
    clump, leaf = noise.solid(x * 0.11, y * 0.11, z * 0.11), noise.solid(x * 0.31, y * 0.31, z * 0.31)
    return clump * 0.55 + leaf * 0.45 > solid.ragged * (0.74 - 0.52 * facing)
