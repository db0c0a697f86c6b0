"""From hits to a picture: painters, sun and sky light, haze, the sky itself, tone and anti-aliasing."""

from collections.abc import Sequence

import numpy as np

from refiner_ds.data.example.camera import Camera
from refiner_ds.data.example.light import Light, light_of
from refiner_ds.data.example.materials import LOOK_WIDTH, Material, linear, mix
from refiner_ds.data.example.raycast import Hits, cast
from refiner_ds.data.example.solids import Solid
from refiner_ds.data.example.street import mood_of
from refiner_ds.data.example.surface import Faces, Surface

from . import facades, grounds, noise, objects

_SUPERSAMPLING = 2
_HAZE_METRES = 380.0
_ZENITH = np.array(linear("4f86c6"), np.float32)
_HORIZON = np.array(linear("c9d9e6"), np.float32)
_CLOUD = np.array(linear("fbfaf6"), np.float32)
_SKY_LIGHT = np.array([0.52, 0.62, 0.78], np.float32)
_BOUNCE = np.array([0.26, 0.24, 0.21], np.float32)


def picture(solids: Sequence[Solid], camera: Camera, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """The street through `camera`: (height, width, 3) uint8 RGB, and 1/depth (height, width) float32 in 1/metres."""
    fine = camera.scaled(_SUPERSAMPLING)
    light = light_of(solids, mood_of(seed), camera.position[2])
    hits = cast(solids, fine)
    colour = _colours(list(solids), fine, hits, light, seed)
    colour = _tone(colour).reshape(camera.height, 2, camera.width, 2, 3).mean(axis=(1, 3))
    encoded = np.power(colour, np.float32(1 / 2.2)) * np.float32(255) + np.float32(0.5)
    inverse = hits.inverse[::_SUPERSAMPLING, ::_SUPERSAMPLING]
    return np.clip(encoded, 0, 255).astype(np.uint8), np.ascontiguousarray(inverse)


def _tone(light: np.ndarray) -> np.ndarray:
    """A film curve: darks a little darker, highlights rolled off. Narkowicz 2015, "ACES filmic tone mapping curve"."""
    light = light * np.float32(0.68)
    return np.clip(light * (2.51 * light + 0.03) / (light * (2.43 * light + 0.59) + 0.14), 0.0, 1.0)


def _colours(solids: list[Solid], camera: Camera, hits: Hits, light: Light, seed: int) -> np.ndarray:
    """Linear light per sample, (height * width, 3) float32."""
    faces = Faces(solids, LOOK_WIDTH)
    solid, face = hits.solid.ravel().astype(np.int32), hits.face.ravel()
    material = np.where(solid >= 0, faces.material[solid, face], -1)
    colour = np.empty((len(solid), 3), np.float32)
    sky = np.flatnonzero(material < 0)
    colour[sky] = _sky(camera, sky, light)
    for kind in Material:
        where = np.flatnonzero(material == kind)
        if len(where):
            surface = faces.surface(hits, camera, where)
            colour[where] = _lit(surface, _albedo(kind, surface, faces.look, seed), kind, light)
    return colour


def _albedo(kind: Material, surface: Surface, look: np.ndarray, seed: int) -> np.ndarray:
    if kind is Material.ROAD:
        return grounds.paint_road(surface, seed)
    if kind is Material.PAVEMENT:
        return grounds.paint_pavement(surface)
    painters = {
        Material.WALL: facades.paint_wall,
        Material.ROOF: facades.paint_roof,
        Material.PAINTWORK: objects.paint_bodywork,
        Material.CABIN: objects.paint_cabin,
        Material.WHEEL: objects.paint_wheel,
        Material.LEAVES: objects.paint_leaves,
        Material.PLAIN: objects.paint_plain,
        Material.AWNING: objects.paint_awning,
    }
    return painters[kind](surface, look)


def _lit(surface: Surface, albedo: np.ndarray, kind: Material, light: Light) -> np.ndarray:
    """Sun behind the houses' shadow, sky from above, light thrown back by the ground, contact shade, then haze."""
    nx, ny, nz = surface.normal
    sun = light.mood.sun
    facing = nx * sun[0] + ny * sun[1] + nz * sun[2]
    if kind is Material.LEAVES:
        facing = 0.35 + 0.65 * facing
    direct = np.maximum(facing, 0.0) * light.sunshine(surface.x, surface.y, surface.z)
    open_sky = 0.5 + 0.5 * ny
    if kind in (Material.ROAD, Material.PAVEMENT):
        left = light.ground_light(surface.x, surface.z)
        direct, open_sky = direct * left, open_sky * (0.35 + 0.65 * left)
    else:
        open_sky = open_sky * (0.62 + 0.38 * np.clip(surface.y / 1.1, 0.0, 1.0))
    warm = np.array([1.0, 0.93 - 0.06 * light.mood.warmth, 0.82 - 0.16 * light.mood.warmth], np.float32)
    power = direct[:, None] * (np.float32(1.95) * warm) + open_sky[:, None] * _SKY_LIGHT
    power += (0.5 - 0.5 * ny)[:, None] * _BOUNCE
    haze = 1 - np.exp(surface.depth / -_HAZE_METRES)
    return mix(albedo * power, _HORIZON * np.float32(0.85), haze)


def _sky(camera: Camera, where: np.ndarray, light: Light) -> np.ndarray:
    """A blue that pales towards the horizon, and clouds on a plane high above."""
    east, up, north = camera.directions()
    row, column = np.divmod(where.astype(np.int32), np.int32(camera.width))
    x, y, z = east[column], up[row], north[column]
    high = np.clip(y / np.sqrt(x * x + y * y + z * z), 0.0, 1.0)
    colour = mix(np.broadcast_to(_HORIZON, (len(high), 3)), _ZENITH, np.clip(high * 1.5, 0, 1) ** 0.7)
    u, v = x / (y + 0.12 * z + 0.05), z / (y + 0.12 * z + 0.05)
    density = noise.smooth("cloud", u * 0.05 + light.mood.warmth, v * 0.03 + light.mood.clouds)
    wisp = noise.smooth("cloud", u * 0.19, v * 0.11)
    cover = noise.step(0.62 - 0.3 * light.mood.clouds, 0.85 - 0.25 * light.mood.clouds, density * 0.75 + wisp * 0.25)
    shaded = _CLOUD * (1.0 - 0.22 * density * wisp)[:, None]
    return mix(colour, shaded, cover * noise.step(0.0, 0.12, high) * 0.9) * np.float32(0.95)
