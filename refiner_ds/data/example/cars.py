"""Cars: a lower body, a glazed cabin and four wheels. Lamps, doors and pillars are painted on elsewhere."""

from typing import NamedTuple

import numpy as np

from refiner_ds.data.example.materials import CarLook, Material, pick
from refiner_ds.data.example.solids import Solid, cylinder, prism


class Shape(NamedTuple):
    """A car's side view, nose to the left: lengths from the nose and heights above the road, metres."""

    length: float
    half_width: float
    bonnet: float
    belt: float
    roof: float
    windscreen: tuple[float, float]
    rear: tuple[float, float]


SHAPES = (
    Shape(4.15, 0.88, 0.78, 0.95, 1.48, (1.05, 1.85), (3.55, 4.05)),  # hatchback
    Shape(4.65, 0.90, 0.74, 0.92, 1.43, (1.25, 2.15), (3.25, 4.05)),  # saloon
    Shape(4.70, 0.90, 0.76, 0.93, 1.46, (1.20, 2.05), (4.10, 4.62)),  # estate
    Shape(4.45, 0.93, 0.95, 1.08, 1.70, (1.00, 1.70), (3.95, 4.40)),  # off-roader
    Shape(4.95, 0.98, 1.05, 1.20, 1.98, (0.55, 1.35), (4.75, 4.92)),  # van
)
_WHEEL_RADIUS = 0.32


def make_car(rng: np.random.Generator, x: float, z: float, heading: int) -> list[Solid]:
    """A car with its middle at (x, z) on the road; `heading` +1 drives along +z."""
    shape = SHAPES[int(rng.choice(len(SHAPES), p=[0.34, 0.24, 0.18, 0.16, 0.08]))]
    look = CarLook(
        x=x,
        z=z,
        half_width=shape.half_width,
        half_length=shape.length / 2,
        belt=shape.belt,
        roof=shape.roof,
        heading=heading,
        colour=pick(rng, "car"),
        wheel_base=shape.length * 0.305,
        salt=int(rng.integers(1 << 12)),
    )

    def corners(side_view: list[tuple[float, float]]) -> list[tuple[float, float]]:
        return [(z + heading * (shape.length / 2 - from_nose), y) for from_nose, y in side_view]

    length, wide = shape.length, (x - shape.half_width, x + shape.half_width)
    tail = shape.belt - 0.04 if shape.rear[1] < length - 0.4 else shape.belt
    body = [(0.0, 0.42), (0.04, 0.66), (0.22, shape.bonnet), (shape.windscreen[0], shape.belt)]
    body += [(shape.rear[1], shape.belt), (length - 0.03, tail), (length, 0.45), (length - 0.15, 0.24), (0.12, 0.24)]
    cabin = [(shape.windscreen[0] - 0.08, shape.belt - 0.03), (shape.windscreen[1], shape.roof - 0.05)]
    cabin += [(shape.windscreen[1] + 0.45, shape.roof), (shape.rear[0] - 0.3, shape.roof)]
    cabin += [(shape.rear[0], shape.roof - 0.06), (shape.rear[1], shape.belt - 0.03)]
    narrow = (wide[0] + 0.035, wide[1] - 0.035)
    parts = [
        prism(corners(body), wide, Material.PAINTWORK, look, taper=0.06),
        prism(corners(cabin), narrow, Material.CABIN, look, taper=0.3),
    ]
    for across in (-1, 1):
        for along in (-1, 1):
            centre = (x + across * (shape.half_width - 0.1), _WHEEL_RADIUS, z + along * look.wheel_base)
            parts.append(cylinder(centre, _WHEEL_RADIUS, 0.115, 0, Material.WHEEL, look))
    return parts
