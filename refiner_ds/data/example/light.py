"""Shadows: those of houses from the skyline on the sunny side, those of cars and crowns from a map of the ground."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from refiner_ds.data.example.materials import CarLook, Material
from refiner_ds.data.example.solids import Solid
from refiner_ds.data.example.street import FRONT, SHADOW_METRES, Mood

from . import noise

_SKYLINE_METRES = 0.25
_MAP_METRES = 0.1
_MAP_X = (-11.0, 8.0)
_MAP_LENGTH = 145.0


@dataclass(frozen=True)
class Light:
    """Light over one frame: `skyline` is the eaves' height by z from `start` on the sunny side, `ground` (z, x) float32
    in [0, 1] what cars, crowns and walls leave of the light."""

    mood: Mood
    start: float
    skyline: np.ndarray
    ground: np.ndarray

    def sunshine(self, x: np.ndarray, y: np.ndarray, z: np.ndarray) -> np.ndarray:
        """How much of the sun reaches points past the houses on its side, [0, 1]."""
        return _past_houses(self.mood, self.start, self.skyline, x, y, z)

    def ground_light(self, x: np.ndarray, z: np.ndarray) -> np.ndarray:
        """What cars, crowns and house walls leave of the light at points on the ground, [0, 1]."""
        rows, columns = self.ground.shape
        row = np.clip((z - self.start) / _MAP_METRES, 0, rows - 1.001).astype(np.float32)
        column = np.clip((x - _MAP_X[0]) / _MAP_METRES, 0, columns - 1.001).astype(np.float32)
        i, j = row.astype(np.int32), column.astype(np.int32)
        a, b = row - i, column - j
        flat, at = self.ground.ravel(), i * columns + j
        near = flat[at] * (1 - b) + flat[at + 1] * b
        far = flat[at + columns] * (1 - b) + flat[at + columns + 1] * b
        return near * (1 - a) + far * a


def light_of(solids: Sequence[Solid], mood: Mood, z: float) -> Light:
    """The light over the solids around a camera at `z`."""
    start = np.floor(z / 8.0) * 8.0 - SHADOW_METRES  # in steps, lest the map crawl along with the camera
    skyline = _skyline(solids, mood, start)
    return Light(mood, float(start), skyline, _ground(solids, mood, start, skyline))


def _past_houses(
    mood: Mood, start: float, skyline: np.ndarray, x: np.ndarray, y: np.ndarray | float, z: np.ndarray
) -> np.ndarray:
    """How much of the sun passes above the eaves on its side, on the way from there to points, [0, 1]."""
    sun = mood.sun
    travel = np.maximum((FRONT[1 if sun[0] > 0 else -1] - x) / sun[0], 0.0)
    cell = ((z + travel * sun[2] - start) / _SKYLINE_METRES).astype(np.int32)
    height = skyline[np.clip(cell, 0, len(skyline) - 1)]
    return np.clip((y + travel * sun[1] - height) * 2.5 + 0.5, 0.0, 1.0)


def _skyline(solids: Sequence[Solid], mood: Mood, start: float) -> np.ndarray:
    heights = np.zeros(int(330.0 / _SKYLINE_METRES), np.float32)
    side = 1 if mood.sun[0] > 0 else -1
    for solid in solids:
        if solid.paint[0] is Material.WALL and abs(solid.look[0] - FRONT[side]) < 3.0:
            eave = solid.look[3] + solid.look[4] * solid.look[5] + 0.35
            first = max(int((solid.low[2] - start) / _SKYLINE_METRES), 0)
            last = max(int((solid.high[2] - start) / _SKYLINE_METRES), 0)
            heights[first:last] = np.maximum(heights[first:last], eave)
    return heights


def _ground(solids: Sequence[Solid], mood: Mood, start: float, skyline: np.ndarray) -> np.ndarray:
    x = np.arange(_MAP_X[0], _MAP_X[1], _MAP_METRES, dtype=np.float32)
    z = (start + np.arange(0.0, _MAP_LENGTH, _MAP_METRES)).astype(np.float32)
    light = np.ones((len(z), len(x)), np.float32)
    sunlit = _past_houses(mood, start, skyline, x[None, :], 0.0, z[:, None])
    wall = np.minimum(np.abs(x - FRONT[1]), np.abs(x - FRONT[-1]))
    light *= 1 - 0.4 * np.exp(-wall / 0.5)[None, :]
    for solid in solids:
        if solid.low[2] > z[-1]:
            continue
        if solid.paint[0] is Material.PAINTWORK:
            _shade_car(light, x, z, solid, mood)
        elif solid.paint[0] is Material.LEAVES and solid.low[1] > 0.8:
            _shade_crown(light, sunlit, x, z, solid, mood)
    return light


def _window(x: np.ndarray, z: np.ndarray, box: tuple[float, float, float, float]) -> tuple[slice, slice]:
    columns = slice(*np.searchsorted(x, box[:2]))
    return slice(*np.searchsorted(z, box[2:])), columns


def _shade_car(light: np.ndarray, x: np.ndarray, z: np.ndarray, solid: Solid, mood: Mood) -> None:
    """A dark patch under the car, and a soft shadow away from the sun."""
    look = CarLook(*solid.look)
    for lift, soft, depth in ((0.0, 0.28, 0.85), (0.75, 0.35, 0.42)):
        cx = look.x - mood.sun[0] / mood.sun[1] * lift
        cz = look.z - mood.sun[2] / mood.sun[1] * lift
        reach = (look.half_width + soft, look.half_length + soft)
        window = _window(x, z, (cx - reach[0] - 0.4, cx + reach[0] + 0.4, cz - reach[1] - 0.4, cz + reach[1] + 0.4))
        dx = np.abs(x[window[1]] - cx)[None, :] - look.half_width + 0.15
        dz = np.abs(z[window[0]] - cz)[:, None] - look.half_length + 0.15
        outside = np.hypot(np.maximum(dx, 0), np.maximum(dz, 0))
        light[window] *= 1 - depth * (1 - noise.step(0.0, soft + 0.15, outside))


def _shade_crown(light: np.ndarray, sunlit: np.ndarray, x: np.ndarray, z: np.ndarray, solid: Solid, mood: Mood) -> None:
    """A dappled patch where the crown stands between the sun and the ground."""
    assert solid.quadric is not None
    centre, radius = solid.quadric[0], float(solid.quadric[1][0]) ** -0.5
    cx = centre[0] - mood.sun[0] / mood.sun[1] * centre[1]
    cz = centre[2] - mood.sun[2] / mood.sun[1] * centre[1]
    window = _window(x, z, (cx - radius * 1.5, cx + radius * 1.5, cz - radius * 1.2, cz + radius * 1.2))
    xs, zs = np.broadcast_arrays(x[window[1]][None, :], z[window[0]][:, None])
    distance = np.hypot((xs - cx) / (radius * 1.3), (zs - cz) / radius)
    dapple = noise.smooth("cloud", xs * 0.11, zs * 0.11)
    light[window] *= 1 - 0.5 * sunlit[window] * (1 - noise.step(0.55, 1.0, distance + 0.6 * (dapple - 0.5)))
