"""Frames of the example: a triplet of render, gt and cond for every step of the camera along a procedural street."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from refiner_ds.data.example.camera import stereo_pair
from refiner_ds.data.example.shade import picture
from refiner_ds.data.example.splats import fit_splats
from refiner_ds.data.example.splatting import splat
from refiner_ds.data.example.street import solids_of
from refiner_ds.errors import UserError

SHAPES = ((1408, 376), (640, 480))
LEAST_SHAPE = (64, 48)


@dataclass(frozen=True)
class Frame:
    """One triplet: arrays (height, width, 3) uint8 RGB in [0, 255], and a name such as "street0003-000012-1408x376".

    `render` is a splat rendering into the right camera, `gt` the right camera's picture, `cond` the left camera's.
    """

    name: str
    render: np.ndarray
    gt: np.ndarray
    cond: np.ndarray


def draw_frames(
    frames: int, shapes: Sequence[tuple[int, int]] = SHAPES, seed: int = 0, baseline: float = 0.6
) -> Iterator[Frame]:
    """Draws a street as a rectified stereo pair sees it while driving, 0.8 m further every frame.

    `shapes` are (width, height) in pixels; frame i has shapes[i % len(shapes)]. A new `seed` is a new street.
    `baseline` is the distance from the left to the right camera, metres. A frame depends on its index and shape, the
    seed and the baseline only.

    Raises UserError, before anything is drawn, for a number of frames, a shape, a seed or a baseline out of range.
    """
    check_request(frames, shapes, seed, baseline)
    return (draw_frame(index, shapes[index % len(shapes)], seed, baseline) for index in range(frames))


def draw_frame(index: int, shape: tuple[int, int], seed: int, baseline: float) -> Frame:
    """Frame `index` of the street of `seed` at `shape` (width, height), pixels."""
    width, height = shape
    left, right = stereo_pair(index, width, height, seed, baseline)
    solids = solids_of(seed, index, left.position[2])
    cond, inverse = picture(solids, left, seed)
    gt, _ = picture(solids, right, seed)
    splats = fit_splats(cond, inverse, left, np.random.default_rng([seed, 5, index, width, height]))
    render, _ = splat(splats, right)
    return Frame(frame_name(index, shape, seed), render, gt, cond)


def frame_name(index: int, shape: tuple[int, int], seed: int) -> str:
    """The name of a frame, which sorts by street, then by the way along it."""
    return f"street{seed:04d}-{index:06d}-{shape[0]}x{shape[1]}"


def check_request(frames: int, shapes: Sequence[tuple[int, int]], seed: int, baseline: float) -> None:
    """Raises UserError for a request that can't be drawn, in one sentence with a remedy."""
    if frames < 1:
        raise UserError(f"frames is {frames}, so that nothing would be drawn: ask for 1 or more.")
    if not shapes:
        raise UserError("shapes is empty, so that no frame has a size: give at least one, such as 1408x376.")
    for width, height in shapes:
        if width < LEAST_SHAPE[0] or height < LEAST_SHAPE[1]:
            raise UserError(
                f"shape {width}x{height} is too small to show a street: "
                f"give at least {LEAST_SHAPE[0]}x{LEAST_SHAPE[1]} pixels (width x height)."
            )
    if seed < 0:
        raise UserError(f"seed is {seed}, which names no street: give 0 or a larger whole number.")
    if not 0 < baseline <= 3:
        raise UserError(
            f"baseline is {baseline:g} metres, with which the right camera sees nothing new or leaves the road: "
            "give more than 0 and at most 3, such as 0.6."
        )
