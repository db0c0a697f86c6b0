"""The rectified stereo pair and its path along the street. World axes in metres: x right, y up, z along the street."""

import math
from dataclasses import dataclass, replace

import numpy as np

STEP_METRES = 0.8
HEIGHT_METRES = 1.6
_KITTI_ASPECT = 1408 / 376


@dataclass(frozen=True)
class Camera:
    """A pinhole camera that stands upright and is turned by `yaw` only, so that rows keep their elevation.

    `fx` (both axes), `cx`, `cy` in pixels; `position` (x, y, z) in metres; `yaw` in radians, positive to the right.
    """

    width: int
    height: int
    fx: float
    cx: float
    cy: float
    position: tuple[float, float, float]
    yaw: float

    def scaled(self, factor: int) -> "Camera":
        """The same view with `factor` times the pixels along each side."""
        return replace(
            self,
            width=self.width * factor,
            height=self.height * factor,
            fx=self.fx * factor,
            cx=self.cx * factor,
            cy=self.cy * factor,
        )

    def directions(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """World directions with unit depth: x and z by column (width,), y by row (height,), float32."""
        x = (np.arange(self.width) + 0.5 - self.cx) / self.fx
        y = (np.arange(self.height) + 0.5 - self.cy) / self.fx
        cos, sin = math.cos(self.yaw), math.sin(self.yaw)
        east, north = x * cos + sin, cos - x * sin
        return east.astype(np.float32), (-y).astype(np.float32), north.astype(np.float32)

    def rotation(self) -> np.ndarray:
        """World to camera axes (x right, y down, z forward), (3, 3) float64."""
        cos, sin = math.cos(self.yaw), math.sin(self.yaw)
        return np.array([[cos, 0.0, -sin], [0.0, -1.0, 0.0], [sin, 0.0, cos]])

    def to_camera(self, points: np.ndarray) -> np.ndarray:
        """World points (..., 3) in this camera's axes, metres."""
        return (points - np.array(self.position)) @ self.rotation().T


def stereo_pair(index: int, width: int, height: int, seed: int, baseline: float) -> tuple[Camera, Camera]:
    """Left and right camera of frame `index`.

    1408x376 has KITTI-360's rectified intrinsics (fx 0.392 of the width, horizon at 0.635 of the height). A taller
    shape takes a middle way between the same horizontal and the same vertical field of view.
    """
    slim = (_KITTI_ASPECT * height / width) ** 0.4
    fx = 0.3924 * width * max(slim, 0.8)
    phase = 0.7 * (seed % 97)
    distance = index * STEP_METRES
    x = 0.16 * math.sin(distance / 17.0 + phase)
    yaw = 0.028 * math.sin(distance / 23.0 + 1.3 * phase) + 0.012
    left = Camera(
        width=width,
        height=height,
        fx=fx,
        cx=0.4844 * width,
        cy=height * min(0.635, 0.635 / max(slim, 1.0) ** 0.35),
        position=(x, HEIGHT_METRES, distance),
        yaw=yaw,
    )
    right = (x + baseline * math.cos(yaw), HEIGHT_METRES, distance - baseline * math.sin(yaw))
    return left, replace(left, position=right)
