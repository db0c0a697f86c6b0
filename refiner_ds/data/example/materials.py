"""What a surface is made of: the materials, the numbers each takes, and the palette (linear light)."""

from collections.abc import Sequence
from enum import IntEnum
from typing import Any, NamedTuple

import numpy as np

LOOK_WIDTH = 20


class Material(IntEnum):
    """Names the painter of a face."""

    ROAD = 0
    PAVEMENT = 1
    WALL = 2
    ROOF = 3
    PAINTWORK = 4
    CABIN = 5
    WHEEL = 6
    LEAVES = 7
    PLAIN = 8
    AWNING = 9


class WallLook(NamedTuple):
    """A house: metres, palette numbers, and switches. Its roof reads the same row."""

    front: Any
    start: Any
    width: Any
    ground: Any
    storey: Any
    storeys: Any
    pitch: Any
    window_width: Any
    window_height: Any
    wall: Any
    trim: Any
    roof: Any
    accent: Any
    texture: Any  # 0 plaster, 1 brick, 2 ashlar
    shop: Any
    shutters: Any
    salt: Any


class CarLook(NamedTuple):
    """A car: its middle on the ground, half its width and length, heading (+1 drives away), metres."""

    x: Any
    z: Any
    half_width: Any
    half_length: Any
    belt: Any
    roof: Any
    heading: Any
    colour: Any
    wheel_base: Any
    salt: Any


class TintLook(NamedTuple):
    """Leaves, posts, trunks and awnings: a palette number, how strongly it varies, a salt and a centre in metres."""

    colour: Any
    variation: Any
    salt: Any
    y: Any
    height: Any


def rows(look: type, table: np.ndarray, solids: np.ndarray) -> Any:
    """The look of every hit as named columns: `table` (solids, LOOK_WIDTH) float32 picked at `solids` (hits,)."""
    width = len(look._fields)  # type: ignore[attr-defined]
    return look(*(table[:, column][solids] for column in range(width)))


def linear(colour: str) -> tuple[float, float, float]:
    """An sRGB colour such as "c8b496" in linear light, each channel in [0, 1]."""
    red, green, blue = (int(colour[i : i + 2], 16) / 255 for i in (0, 2, 4))
    return red**2.2, green**2.2, blue**2.2


def mix(colour: np.ndarray, other: np.ndarray, share: np.ndarray) -> np.ndarray:
    """`colour` (n, 3) with `share` (n,) of it replaced by `other`, (3,) or (n, 3)."""
    return colour + (other - colour) * np.asarray(share, dtype=np.float32)[..., None]


_COLOURS: dict[str, Sequence[str]] = {
    "plaster": ("d9c7a3", "e3d6bd", "cfa98a", "c9b8a0", "d8b36a", "b9c2b4", "c98f78", "e6e0d2", "aebccb", "d3a3a0"),
    "brick": ("8f4a38", "a2583f", "7b4436", "b07a55"),
    "stone": ("b5a98f", "a39c90", "c2b79c"),
    "trim": ("f0ebe0", "e2d8c4", "c9beaa", "f4f1ea"),
    "roof": ("7a3b2c", "8d4a36", "5a3a34", "4a4c52", "6b3328"),
    "accent": ("7d1f24", "1f4a3d", "20365e", "b8862b", "4b2d4f", "2f6a73", "a8482c", "33383d"),
    "car": ("b81f24", "1f3d73", "d9dbdc", "8e9499", "26282b", "e8e4da", "2f5c46", "c98a1d", "5d7f9e", "6b1c2b"),
    "leaf": ("4a6b33", "56753a", "3d6034", "647a3c", "6e7f42"),
    "autumn": ("b3842a", "a8632a", "8f8a35", "c29a3a", "6f7f35"),
    "metal": ("3f4447", "2f3a36", "6d7275"),
    "bark": ("5d4c3d", "6d5a48"),
    "sign": ("1f4fa3", "c02a24"),
}
_STARTS: dict[str, int] = {}
_rows: list[tuple[float, float, float]] = []
for _name, _members in _COLOURS.items():
    _STARTS[_name] = len(_rows)
    _rows += [linear(member) for member in _members]
PALETTE = np.array(_rows, dtype=np.float32)


def pick(rng: np.random.Generator, family: str) -> int:
    """The palette number of a random colour of `family`."""
    return _STARTS[family] + int(rng.integers(len(_COLOURS[family])))


def number(family: str, member: int = 0) -> int:
    """The palette number of one colour of `family`."""
    return _STARTS[family] + member
