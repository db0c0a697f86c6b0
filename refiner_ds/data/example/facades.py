"""Painters of houses: walls with windows, doors and shop fronts, and tiled roofs. They return albedo (n, 3), linear."""

from dataclasses import dataclass

import numpy as np

from refiner_ds.data.example.materials import PALETTE, WallLook, linear, mix, rows
from refiner_ds.data.example.surface import Surface

from . import noise

_GLASS = np.array(linear("39454f"), np.float32)
_SKY_IN_GLASS = np.array(linear("a9bccb"), np.float32)
_CURTAIN = np.array(linear("d8d2c4"), np.float32)
_PLINTH = np.array(linear("77716a"), np.float32)
_MORTAR = np.array(linear("b0a595"), np.float32)
_LAMP = np.array(linear("ffdca0"), np.float32)
_SHUTTER = 0.42


@dataclass(frozen=True)
class _Grid:
    """Where a hit lies in the facade's grid of windows: metres from the window's middle, and the cell's numbers."""

    across: np.ndarray
    above: np.ndarray
    column: np.ndarray
    floor: np.ndarray
    along: np.ndarray
    columns: np.ndarray
    street: np.ndarray


def _grid(hits: Surface, look: WallLook) -> _Grid:
    street = np.abs(hits.normal[0]) > 0.5
    along = np.where(street, hits.z - look.start, np.abs(hits.x - look.front))
    span = np.where(street, look.width, 10.0)
    columns = np.maximum(np.floor(span / look.pitch), 1.0)
    pitch = span / columns
    column = np.floor(along / pitch)
    floor = np.floor((hits.y - look.ground) / look.storey)
    middle = look.ground + (floor + 0.5) * look.storey + 0.05
    return _Grid(along - (column + 0.5) * pitch, hits.y - middle, column, floor, along, columns, street)


def paint_wall(hits: Surface, table: np.ndarray) -> np.ndarray:
    """Walls: the material, then windows by storey, then what the ground floor holds."""
    look = rows(WallLook, table, hits.solid)
    grid = _grid(hits, look)
    colour = _masonry(hits, look, grid)
    cell = noise.cell_hash(look.salt, grid.floor, grid.column)
    door = (look.shop < 0.5) & (grid.floor == 0) & (grid.column == np.floor(grid.columns / 2))
    wanted = np.where(grid.street, (cell > 0.03) & ~door, cell > 0.72)
    upper = np.flatnonzero((grid.floor >= 0) & (grid.floor < look.storeys) & wanted)
    _windows(colour, upper, look, grid, cell)
    _plinth(colour, hits, look, grid)
    doors = np.flatnonzero(grid.street & (hits.y < look.ground + 2.4) & (look.shop < 0.5))
    _doors(colour, doors, hits, look, grid)
    shops = np.flatnonzero(grid.street & (hits.y < look.ground) & (look.shop > 0.5))
    _shop_front(colour, shops, hits, look, grid)
    return colour


def _masonry(hits: Surface, look: WallLook, grid: _Grid) -> np.ndarray:
    """Plaster, brick or ashlar, with stains that run down from the eaves; joints fade with distance."""
    colour = PALETTE[look.wall.astype(np.int32)]
    stain = noise.smooth("cloud", grid.along * 0.045 + look.salt * 0.37, hits.y * 0.02 + look.front * 0.1)
    grain = noise.nearest("grain", grid.along * 0.09 + look.salt * 0.1, hits.y * 0.09)
    near = np.clip(1.25 - hits.depth / 28.0, 0.0, 1.0)
    value = 0.72 + 0.44 * stain + 0.16 * near * (grain - 0.5)
    height, width = np.where(look.texture > 1.5, 0.42, 0.085), np.where(look.texture > 1.5, 0.85, 0.26)
    course = np.floor(hits.y / height)
    along = grid.along / width + 0.5 * (course % 2)
    brick = noise.cell_hash(course, np.floor(along), look.salt)
    joint = np.minimum((along % 1.0) * width, (hits.y % height)) < np.where(look.texture > 1.5, 0.018, 0.012)
    laid = look.texture > 0.5
    value = value * np.where(laid, 1 + (0.34 * near + 0.05) * (brick - 0.5), 0.9)
    colour = colour * value[:, None]
    return mix(colour, _MORTAR * 0.8, laid * joint * near * 0.65)


def _windows(colour: np.ndarray, at: np.ndarray, look: WallLook, grid: _Grid, cell: np.ndarray) -> None:
    """Glass behind a frame, in a surround, on a sill; some with curtains, some with shutters, a few lit."""
    across, above = grid.across[at], grid.above[at]
    half, tall = look.window_width[at] / 2, look.window_height[at] / 2
    edge = np.maximum(np.abs(across) - half, np.abs(above) - tall)
    patch, trim = colour[at], PALETTE[look.trim[at].astype(np.int32)]
    beside = np.abs(across) - half
    leaf = (look.shutters[at] > 0.5) & (beside > 0.02) & (beside < _SHUTTER) & (np.abs(above) < tall)
    slat = 0.75 + 0.35 * ((above * 14.0) % 1.0)
    patch = mix(patch, PALETTE[look.accent[at].astype(np.int32)] * slat[:, None], leaf)
    patch = mix(patch, trim, (edge > 0) & (edge < 0.11) & (look.shutters[at] < 0.5))
    patch = mix(patch, trim * 1.05, (np.abs(across) < half + 0.16) & (above < -tall) & (above > -tall - 0.12))
    under = (np.abs(across) < half + 0.14) & (above < -tall - 0.12)
    patch *= 1 - 0.35 * (under * np.exp((above + tall + 0.12) * 9.0))[:, None]
    pane = _pane(across, above / (2 * tall) + 0.5, cell[at])
    frame = (edge > -0.07) | (np.abs(across) < 0.035) | (np.abs(above - tall * 0.4) < 0.03)
    inside = mix(pane, np.minimum(trim * 1.15, 0.9), frame)
    reveal = (above > tall - 0.16) | (np.abs(across) > half - 0.04)
    colour[at] = mix(patch, inside * (1 - 0.5 * reveal)[:, None], edge < 0)


def _pane(across: np.ndarray, up: np.ndarray, cell: np.ndarray) -> np.ndarray:
    """A pane from its foot (up 0) to its head (up 1): dark room, a share of mirrored sky, curtains, a lamp."""
    pane = _GLASS * (0.5 + 0.5 * cell)[:, None]
    pane = mix(pane, _SKY_IN_GLASS, np.clip(0.10 + 0.55 * (up - 0.35) * ((cell * 7) % 1.0), 0.03, 0.6))
    drawn = ((cell * 13) % 1.0 < 0.45) & ((np.abs(across) > 0.28 + 0.2 * cell) | (up > 0.86))
    pane = mix(pane, _CURTAIN * (0.55 + 0.2 * np.cos(across * 42.0))[:, None], drawn * 0.8)
    return mix(pane, _LAMP, 0.5 * ((cell * 29) % 1.0 < 0.05))


def _plinth(colour: np.ndarray, hits: Surface, look: WallLook, grid: _Grid) -> None:
    low = (hits.y < np.minimum(look.ground - 0.1, 0.85)) & (look.shop < 0.5)
    seam = ((hits.y % 0.4) < 0.02) | ((grid.along % 0.9) < 0.02)
    at = np.flatnonzero(low)
    grain = noise.nearest("grain", grid.along[at] * 0.1, hits.y[at] * 0.1)
    colour[at] = _PLINTH * (0.8 + 0.3 * grain - 0.2 * seam[at])[:, None]


def _doors(colour: np.ndarray, at: np.ndarray, hits: Surface, look: WallLook, grid: _Grid) -> None:
    """One door in the middle column of a house without a shop, with a fanlight and a step."""
    look_at = WallLook(*(column[at] for column in look))
    across, up = grid.across[at], hits.y[at] - 0.13
    here = grid.column[at] == np.floor(grid.columns[at] / 2)
    edge = np.maximum(np.abs(across) - 0.55, up - 2.55)
    door = PALETTE[look_at.accent.astype(np.int32)]
    panel = (np.abs(np.abs(across) - 0.26) < 0.17) & (((up > 0.25) & (up < 0.95)) | ((up > 1.15) & (up < 1.9)))
    door = door * (1 - 0.3 * panel)[:, None]
    door = mix(door, _GLASS, (up > 2.1) & (up < 2.48) & (np.abs(across) < 0.48))
    patch = mix(colour[at], PALETTE[look_at.trim.astype(np.int32)], here & (edge < 0.14))
    patch = mix(patch, door, here & (edge < 0.0))
    colour[at] = mix(patch, _PLINTH, here & (up < 0.18) & (np.abs(across) < 0.8))


def _shop_front(colour: np.ndarray, at: np.ndarray, hits: Surface, look: WallLook, grid: _Grid) -> None:
    """Shop windows between pilasters, a door in the middle, and a sign board with lettering above."""
    look_at = WallLook(*(column[at] for column in look))
    along, up = grid.along[at], hits.y[at] - 0.13
    accent = PALETTE[look_at.accent.astype(np.int32)]
    bay = look_at.width / np.maximum(np.floor(look_at.width / 2.6), 1.0)
    which, within = np.floor(along / bay), np.abs(along % bay - bay / 2) - bay / 2
    pane = (within < -0.22) & (up > np.where(which == 1, 0.1, 0.55)) & (up < 2.55)
    glass = mix(_goods(along, up, look_at.salt), _SKY_IN_GLASS, np.clip((up - 0.9) * 0.2, 0.03, 0.35))
    front = mix(accent * 0.9, glass, pane & ((within < -0.28) | (up > 2.45)))
    board = (up > 2.62) & (up < 3.22)
    letters = noise.cell_hash(np.floor(along * 9.0), np.floor((up - 2.78) * 16.0), look_at.salt) > 0.4
    middle = np.abs(along - look_at.width / 2) < look_at.width * 0.24
    written = board & (np.abs(up - 2.92) < 0.15) & middle & letters & ((along * 2.25) % 1.0 < 0.72)
    front = mix(front, accent * 0.8, board)
    front = mix(front, PALETTE[look_at.trim.astype(np.int32)], written | (np.abs(up - 3.25) < 0.05))
    colour[at] = front


def _goods(along: np.ndarray, up: np.ndarray, salt: np.ndarray) -> np.ndarray:
    """What a shop window shows: dim goods on two shelves, under a row of lamps."""
    shelf, place = np.floor((up - 0.55) / 0.55), np.floor(along / 0.38)
    thing = noise.cell_hash(place, shelf, salt)
    width, height = 0.08 + 0.1 * ((thing * 5) % 1.0), 0.12 + 0.36 * ((thing * 11) % 1.0)
    here = (np.abs(along % 0.38 - 0.19) < width) & ((up - 0.55) % 0.55 < height) & (shelf >= 0) & (shelf < 2)
    room = _GLASS * (0.5 + 0.25 * noise.smooth("cloud", along * 0.05 + salt * 0.3, up * 0.06))[:, None]
    things = PALETTE[(thing * 997).astype(np.int32) % len(PALETTE)] * np.float32(0.5)
    room = mix(room, things, (here & (thing > 0.25)) * 0.8)
    lamp = np.exp(-(((along % 1.3 - 0.65) / 0.3) ** 2) - ((up - 2.3) / 0.22) ** 2)
    return mix(room, _LAMP, 0.55 * lamp)


def paint_roof(hits: Surface, table: np.ndarray) -> np.ndarray:
    """Rows of tiles that darken towards their upper edge; roof windows here and there."""
    look = rows(WallLook, table, hits.solid)
    colour = PALETTE[look.roof.astype(np.int32)]
    along, course = hits.z, hits.y / 0.24
    near = np.clip(1.2 - hits.depth / 45.0, 0.0, 1.0)
    tile = noise.cell_hash(np.floor(course), np.floor(along / 0.3 + 0.5 * (np.floor(course) % 2)), look.salt)
    stain = noise.smooth("cloud", along * 0.04 + look.salt * 0.2, hits.y * 0.05)
    value = 0.78 + 0.45 * stain + near * (0.3 * (tile - 0.5) - 0.35 * (course % 1.0 > 0.8))
    colour = colour * value[:, None]
    cell = noise.cell_hash(np.floor((along - look.start) / 3.0), look.salt)
    edge = np.maximum(np.abs((along - look.start) % 3.0 - 1.5) - 0.4, np.abs(hits.y - _sash(look)) - 0.45)
    colour = mix(colour, _GLASS * np.float32(0.5), (cell > 0.6) & (edge < 0.07))
    return mix(colour, _SKY_IN_GLASS * 0.8, (cell > 0.6) & (edge < 0.0))


def _sash(look: WallLook) -> np.ndarray:
    return look.ground + look.storey * look.storeys + 1.6
