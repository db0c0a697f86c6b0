"""3D Gaussians from too few points of one picture and its depth, with the faults of a fit that saw one lane only."""

from dataclasses import dataclass

import numpy as np

from refiner_ds.data.example.camera import Camera

_PIXELS_PER_SPLAT = 10.0  # at 1408x376; fewer for smaller pictures, whose pixels hold more of the street
_REFERENCE_PIXELS = 1408 * 376
_SKY_METRES = 90.0
_R2 = (0.7548776662, 0.5698402910)  # a low-discrepancy lattice: its thresholds spread points evenly at any density


@dataclass(frozen=True)
class Splats:
    """Gaussians (n,): world `mean` (n, 3) in metres; `axes` (n, 3, 3), whose columns are the principal axes times their
    standard deviations in metres; `colour` (n, 3) and `opacity` (n,) in [0, 1]. All float32."""

    mean: np.ndarray
    axes: np.ndarray
    colour: np.ndarray
    opacity: np.ndarray


def fit_splats(rgb: np.ndarray, inverse: np.ndarray, camera: Camera, rng: np.random.Generator) -> Splats:
    """Gaussians for a picture (height, width, 3) uint8 with inverse depth (height, width) in 1/metres.

    Points gather where the picture has detail, as those of structure from motion do. Each becomes a flat disc on its
    surface, as wide as the points there lie apart; then depth errors, floaters, needles and swollen discs are drawn.
    """
    picture = rgb.astype(np.float32) / 255.0
    row, column, spacing = _points(picture, rng)
    depth = 1.0 / np.maximum(inverse, 1.0 / _SKY_METRES)
    normal = _normals(depth, camera)[row, column]
    sky = inverse[row, column] <= 0
    ray = _rays(camera, row + rng.uniform(0, 1, len(row)), column + rng.uniform(0, 1, len(row)))
    at = depth[row, column]
    at = at * np.exp(rng.normal(0, 1, len(row)) * np.where(sky, 0.3, 0.009 + 0.0016 * at))
    floating = rng.random(len(row)) < 0.022
    at = np.where(floating, at * rng.uniform(0.3, 0.85, len(row)), at)
    size = 0.62 * spacing * at / camera.fx * np.where(floating, rng.uniform(0.7, 1.8, len(row)), 1.0)
    axes = _discs(np.where(floating[:, None], -ray, normal), ray, size)
    _needles(axes, ray, rng)
    faint = rng.random(len(row)) < 0.12
    opacity = np.where(floating | faint, rng.uniform(0.2, 0.6, len(row)), rng.uniform(0.75, 0.99, len(row)))
    colour = _box_blur(picture)[row, column] + rng.normal(0, 0.022, (len(row), 3))
    mean = np.array(camera.position) + ray * at[:, None]
    values = (mean, axes, np.clip(colour, 0, 1), opacity)
    return Splats(*(value.astype(np.float32) for value in values))


def _points(picture: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Rows and columns of the points, and how far the points lie apart there, pixels."""
    grey = picture.mean(axis=2)
    detail = np.abs(np.diff(grey, axis=0, append=grey[-1:])) + np.abs(np.diff(grey, axis=1, append=grey[:, -1:]))
    density = 0.02 + np.minimum(_box_blur(detail), 0.12)
    rate = density / density.mean() / (_PIXELS_PER_SPLAT * (grey.size / _REFERENCE_PIXELS) ** 0.4)
    height, width = grey.shape
    lattice = _R2[0] * np.arange(width)[None, :] + _R2[1] * np.arange(height)[:, None] + rng.random()
    threshold = (lattice + 0.07 * rng.normal(0, 1, grey.shape)) % 1.0
    row, column = np.nonzero(rate > threshold)
    return row, column, 1.0 / np.sqrt(np.minimum(rate[row, column], 1.0))


def _box_blur(values: np.ndarray) -> np.ndarray:
    """The mean over 3x3 pixels, (height, width, ...)."""
    pad = [(1, 1), (1, 1)] + [(0, 0)] * (values.ndim - 2)
    padded = np.pad(values, pad, mode="edge")
    rows = padded[:-2] + padded[1:-1] + padded[2:]
    return (rows[:, :-2] + rows[:, 1:-1] + rows[:, 2:]) / 9.0


def _rays(camera: Camera, row: np.ndarray, column: np.ndarray) -> np.ndarray:
    """World directions (n, 3) with unit depth through pixel coordinates."""
    local = np.stack([(column - camera.cx) / camera.fx, (row - camera.cy) / camera.fx, np.ones(len(row))], axis=1)
    return local @ camera.rotation()


def _normals(depth: np.ndarray, camera: Camera) -> np.ndarray:
    """Unit normals (height, width, 3) that face the camera, from differences of neighbouring points."""
    row, column = np.mgrid[: camera.height, : camera.width]
    points = _rays(camera, row.ravel() + 0.5, column.ravel() + 0.5).reshape(*depth.shape, 3) * depth[..., None]
    down, right = np.gradient(points, axis=0), np.gradient(points, axis=1)
    normal = np.cross(right, down)
    normal /= np.linalg.norm(normal, axis=2, keepdims=True) + 1e-12
    away = (normal * points).sum(axis=2, keepdims=True) > 0
    return np.where(away, -normal, normal)


def _discs(normal: np.ndarray, ray: np.ndarray, size: np.ndarray) -> np.ndarray:
    """Axes (n, 3, 3) of discs that cover `size` metres as seen along `ray`, so longer where the surface slants away."""
    view = ray / np.linalg.norm(ray, axis=1, keepdims=True)
    facing = (view * normal).sum(axis=1, keepdims=True)
    along = view - facing * normal
    length = np.linalg.norm(along, axis=1, keepdims=True)
    spare = np.cross(normal, np.array([0.31, 0.84, 0.44]))
    along = np.where(length > 0.05, along / (length + 1e-9), spare / np.linalg.norm(spare, axis=1, keepdims=True))
    across = np.cross(normal, along)
    stretch = size[:, None] / np.maximum(np.abs(facing), 0.16)
    return np.stack([along * stretch, across * size[:, None], normal * (0.15 * size[:, None])], axis=2)


def _needles(axes: np.ndarray, ray: np.ndarray, rng: np.random.Generator) -> None:
    """Turns some discs, in place, into needles along the viewing ray or any other way, and swells some."""
    kind, count = rng.random(len(axes)), len(axes)
    size = np.linalg.norm(axes[:, :, 1], axis=1, keepdims=True)
    along_ray = np.flatnonzero(kind < 0.035)
    view = ray / np.linalg.norm(ray, axis=1, keepdims=True)
    axes[along_ray, :, 2] = (view * size * rng.uniform(3.0, 14.0, (count, 1)))[along_ray]
    axes[along_ray, :, :2] *= 0.45
    any_way = np.flatnonzero((kind > 0.035) & (kind < 0.08))
    turn = rng.normal(0, 1, (count, 3))
    turn /= np.linalg.norm(turn, axis=1, keepdims=True)
    axes[any_way, :, 0] = (turn * size * rng.uniform(3.0, 10.0, (count, 1)))[any_way]
    axes[any_way, :, 1:] *= 0.35
    swollen = np.flatnonzero(kind > 0.96)
    axes[swollen] *= rng.uniform(1.6, 3.2, (count, 1, 1))[swollen]
