"""Splatting of 3D Gaussians into a camera: the EWA projection of Zwicker et al. 2001, "EWA Volume Splatting", sorted by
depth and composited front to back as in Kerbl et al. 2023, "3D Gaussian Splatting" (eqs. 3 and 5)."""

from dataclasses import dataclass

import numpy as np

from refiner_ds.data.example.camera import Camera
from refiner_ds.data.example.splats import Splats

_TILE = 16
_CHUNK = 96
_NEAR_METRES = 0.4
_LOW_PASS = 0.3  # pixels squared, as in Kerbl et al.
_BACKGROUND = np.float32(0.035)


@dataclass(frozen=True)
class _Flat:
    """Gaussians on the picture, front to back: middle (n, 2) and box half size (n, 2) in pixels, inverse covariance
    (n, 3) as xx, xy, yy."""

    middle: np.ndarray
    reach: np.ndarray
    conic: np.ndarray
    colour: np.ndarray
    opacity: np.ndarray


def splat(splats: Splats, camera: Camera) -> tuple[np.ndarray, np.ndarray]:
    """Renders `splats` into `camera`: (height, width, 3) uint8 RGB, and what shines through, (height, width), 0..1."""
    flat = _project(splats, camera)
    columns = -(-camera.width // _TILE)
    rows = -(-camera.height // _TILE)
    members, first = _bins(flat, columns, rows)
    colour = np.full((rows * _TILE, columns * _TILE, 3), _BACKGROUND, np.float32)
    left = np.ones((rows * _TILE, columns * _TILE), np.float32)
    for tile in range(rows * columns):
        inside = members[first[tile] : first[tile + 1]]
        y, x = tile // columns * _TILE, tile % columns * _TILE
        window = np.s_[y : y + _TILE, x : x + _TILE]
        colour[window], left[window] = _composite(flat, inside, x, y)
    picture = np.clip(colour[: camera.height, : camera.width] * 255 + 0.5, 0, 255).astype(np.uint8)
    return picture, left[: camera.height, : camera.width]


def _project(splats: Splats, camera: Camera) -> _Flat:
    """Flattens the Gaussians, nearest first: cov' = J W cov W^T J^T (Kerbl et al., eq. 5), and a low pass."""
    local = camera.to_camera(splats.mean.astype(np.float64))
    order = np.argsort(local[:, 2], kind="stable")
    order = order[local[order, 2] > _NEAR_METRES]
    x, y, z = local[order].T
    tangent = np.stack([x / z, y / z], axis=1)
    bound = 1.3 * np.array([camera.width, camera.height]) / (2 * camera.fx) + 0.1
    bent = np.clip(tangent, -bound, bound)  # the Jacobian is a poor stand-in far outside the picture
    axes = np.einsum("ij,njk->nik", camera.rotation(), splats.axes[order].astype(np.float64))
    plane = (axes[:, :2] - bent[:, :, None] * axes[:, 2:]) * (camera.fx / z)[:, None, None]
    xx = (plane[:, 0] ** 2).sum(axis=1) + _LOW_PASS
    yy = (plane[:, 1] ** 2).sum(axis=1) + _LOW_PASS
    xy = (plane[:, 0] * plane[:, 1]).sum(axis=1)
    determinant = np.maximum(xx * yy - xy * xy, 1e-6)
    middle = tangent * camera.fx + np.array([camera.cx, camera.cy])
    reach = 3.0 * np.sqrt(np.stack([xx, yy], axis=1))
    conic = np.stack([yy, -xy, xx], axis=1) / determinant[:, None]
    values = (middle, reach, conic, splats.colour[order], splats.opacity[order])
    return _Flat(*(value.astype(np.float32) for value in values))


def _bins(flat: _Flat, columns: int, rows: int) -> tuple[np.ndarray, np.ndarray]:
    """The Gaussians of every tile, front to back, one after another, and where each tile's begin (tiles + 1,)."""
    count = np.array([columns, rows])
    low = np.clip(np.floor((flat.middle - flat.reach) / _TILE), 0, count).astype(np.int64)
    high = np.clip(np.floor((flat.middle + flat.reach) / _TILE) + 1, 0, count).astype(np.int64)
    size = np.maximum(high - low, 0)
    copies = size[:, 0] * size[:, 1]
    owner = np.repeat(np.arange(len(copies)), copies)
    nth = np.arange(len(owner)) - np.repeat(np.cumsum(copies) - copies, copies)
    wide = size[owner, 0]
    tile = (low[owner, 1] + nth // wide) * columns + low[owner, 0] + nth % wide
    order = np.argsort(tile, kind="stable")
    return owner[order], np.searchsorted(tile[order], np.arange(rows * columns + 1))


def _composite(flat: _Flat, inside: np.ndarray, x: int, y: int) -> tuple[np.ndarray, np.ndarray]:
    """One tile: its colour (tile, tile, 3), and what shines through it (tile, tile)."""
    across = np.arange(_TILE, dtype=np.float32) + np.float32(x + 0.5)
    down = np.arange(_TILE, dtype=np.float32) + np.float32(y + 0.5)
    colour = np.zeros((_TILE * _TILE, 3), np.float32)
    left = np.ones(_TILE * _TILE, np.float32)
    for start in range(0, len(inside), _CHUNK):
        these = inside[start : start + _CHUNK]
        dx = across[None, :] - flat.middle[these, 0, None]
        dy = down[None, :] - flat.middle[these, 1, None]
        xx, xy, yy = (flat.conic[these, i, None] for i in range(3))
        power = (-0.5 * yy * dy * dy)[:, :, None] + (-0.5 * xx * dx * dx)[:, None, :]
        power -= (xy * dy)[:, :, None] * dx[:, None, :]
        alpha = np.exp(power, out=power).reshape(len(these), -1)
        alpha *= flat.opacity[these, None]
        np.minimum(alpha, 0.99, out=alpha)
        through = np.cumprod(1.0 - alpha, axis=0)
        alpha[1:] *= through[:-1]
        # No BLAS here: its sums may depend on the number of threads, and a frame must not.
        colour += np.einsum("kp,kc->pc", alpha, flat.colour[these]) * left[:, None]
        left = left * through[-1]
        if left.max() < 0.004:
            break
    colour += left[:, None] * _BACKGROUND
    return colour.reshape(_TILE, _TILE, 3), left.reshape(_TILE, _TILE)
