"""Houses: bodies with a saddle roof, cornices, awnings, chimneys, balconies. Facades are painted elsewhere."""

import numpy as np

from refiner_ds.data.example.materials import Material, TintLook, WallLook, number, pick
from refiner_ds.data.example.solids import MAX_FACES, Solid, box

DEPTH_METRES = 10.0


def make_house(rng: np.random.Generator, side: int, front: float, start: float, width: float) -> list[Solid]:
    """A house whose facade lies at x = `front`, from z = `start` on for `width` metres; `side` +1 is the right one."""
    look = _look(rng, front, start, width)
    eave = look.ground + look.storey * look.storeys + 0.35
    ridge = eave + DEPTH_METRES / 2 * rng.choice([0.7, 0.9, 1.15])
    body = _body(side, look, eave, ridge)
    return [body, *_trimmings(rng, side, look, eave, ridge)]


def _look(rng: np.random.Generator, front: float, start: float, width: float) -> WallLook:
    texture = int(rng.choice(3, p=[0.58, 0.27, 0.15]))
    shop = bool(rng.random() < 0.38)
    storey = rng.uniform(2.8, 3.3)
    return WallLook(
        front=front,
        start=start,
        width=width,
        ground=3.5 if shop else rng.choice([0.55, 0.75, 0.95]),
        storey=storey,
        storeys=int(rng.integers(2, 4)) if shop else int(rng.integers(2, 5)),
        pitch=rng.uniform(1.9, 2.6),
        window_width=rng.uniform(0.95, 1.3),
        window_height=rng.uniform(1.35, 1.75),
        wall=pick(rng, ("plaster", "brick", "stone")[texture]),
        trim=pick(rng, "trim"),
        roof=pick(rng, "roof"),
        accent=pick(rng, "accent"),
        texture=texture,
        shop=float(shop),
        shutters=float(texture == 0 and rng.random() < 0.35),
        salt=int(rng.integers(1 << 12)),
    )


def _body(side: int, look: WallLook, eave: float, ridge: float) -> Solid:
    """Walls and both roof slopes as one convex solid."""
    front, back, end = look.front, look.front + side * DEPTH_METRES, look.start + look.width
    slope = (ridge - eave) / (DEPTH_METRES / 2)
    scale = float(np.hypot(1.0, slope))
    planes = [
        [-side, 0, 0, -side * front],
        [side, 0, 0, side * back],
        [0, 0, -1, -look.start],
        [0, 0, 1, end],
        [-side * slope / scale, 1 / scale, 0, (eave - side * slope * front) / scale],
        [side * slope / scale, 1 / scale, 0, (eave + side * slope * back) / scale],
    ]
    paint = (Material.WALL,) * 4 + (Material.ROOF,) * 2 + (Material.WALL,)
    assert len(planes) < MAX_FACES
    low, high = (min(front, back), 0.0, look.start), (max(front, back), ridge, end)
    return Solid(np.array(planes, dtype=float), paint, tuple(look), low, high)


def _slab(
    side: int, front: float, reach: float, y: tuple[float, float], z: tuple[float, float], colour: int, salt: float
) -> Solid:
    """A bar on the facade that stands out by `reach` metres towards the street."""
    x = sorted((front + side * 0.05, front - side * reach))
    tint = TintLook(colour, 0.25, salt, y[0], y[1] - y[0])
    return box((x[0], y[0], z[0]), (x[1], y[1], z[1]), Material.PLAIN, tint)


def _trimmings(rng: np.random.Generator, side: int, look: WallLook, eave: float, ridge: float) -> list[Solid]:
    end, parts = look.start + look.width, []
    parts.append(_slab(side, look.front, 0.38, (eave - 0.3, eave + 0.04), (look.start, end), look.trim, look.salt))
    if rng.random() < 0.55:
        level = look.ground - 0.08 + (0.0 if look.shop else look.storey)
        parts.append(_slab(side, look.front, 0.1, (level, level + 0.2), (look.start, end), look.trim, look.salt))
    for _ in range(int(rng.integers(1, 3))):
        z, x = rng.uniform(look.start + 1, end - 2), look.front + side * rng.uniform(3.0, 5.0)
        tint = TintLook(number("brick", 2), 0.4, look.salt, ridge, 1.0)
        parts.append(box((x - 0.35, eave, z), (x + 0.35, ridge + rng.uniform(0.6, 1.1), z + 0.9), Material.PLAIN, tint))
    if look.shop and rng.random() < 0.7:
        parts.append(_awning(side, look))
    if not look.shop and look.storeys >= 3 and rng.random() < 0.5:
        parts += _balconies(side, look)
    return parts


def _awning(side: int, look: WallLook) -> Solid:
    """A sloping awning above the shop window."""
    wide = (look.start + 0.5, look.start + look.width - 0.5)
    reach, top, bottom = 1.25, 2.95, 2.45
    x = sorted((look.front, look.front - side * reach))
    tint = TintLook(look.accent, 0.2, look.salt, bottom, top - bottom)
    blank = box((x[0], bottom - 0.12, wide[0]), (x[1], top, wide[1]), Material.AWNING, tint)
    slope = (top - bottom) / reach
    scale = float(np.hypot(1.0, slope))
    lid = [-side * slope / scale, 1 / scale, 0.0, (top - side * slope * look.front) / scale]
    return Solid(np.vstack([blank.planes, lid]), (Material.AWNING,) * 8, blank.look, blank.low, blank.high)


def _balconies(side: int, look: WallLook) -> list[Solid]:
    """One balcony on every storey above the ground floor, in the same column of windows."""
    columns = max(1, int(look.width / look.pitch))
    pitch = look.width / columns
    middle = look.start + (columns // 2 + 0.5) * pitch
    parts = []
    for floor in range(1, int(look.storeys)):
        level = look.ground + floor * look.storey + 0.05
        z = (middle - 0.95, middle + 0.95)
        parts.append(_slab(side, look.front, 0.95, (level, level + 0.14), z, look.trim, look.salt))
        for height in (0.4, 0.65, 0.95):
            x = sorted((look.front - side * 0.95, look.front - side * 0.9))
            tint = TintLook(number("metal"), 0.1, look.salt, level, 1.0)
            parts.append(box((x[0], level + height, z[0]), (x[1], level + height + 0.05, z[1]), Material.PLAIN, tint))
    return parts
