"""The points that rays hit, as columns of numbers: what every painter is handed."""

from dataclasses import dataclass

import numpy as np

from refiner_ds.data.example.camera import Camera
from refiner_ds.data.example.raycast import Hits
from refiner_ds.data.example.solids import MAX_FACES, QUADRIC_FACE, Solid


@dataclass(frozen=True)
class Surface:
    """Hits (n,): world `x`, `y`, `z` and `depth` in metres, unit `normal` (3 x (n,)), the `solid` hit. All float32 but
    `solid`, int16."""

    x: np.ndarray
    y: np.ndarray
    z: np.ndarray
    depth: np.ndarray
    normal: tuple[np.ndarray, np.ndarray, np.ndarray]
    solid: np.ndarray


class Faces:
    """Materials and normals of every face of every solid, and the looks, as tables to index by hit."""

    def __init__(self, solids: list[Solid], look_width: int) -> None:
        self.material = np.full((len(solids), MAX_FACES), -1, np.int8)
        self.normal = np.zeros((len(solids), MAX_FACES, 3), np.float32)
        self.look = np.zeros((len(solids), look_width), np.float32)
        self.centre = np.zeros((len(solids), 3), np.float32)
        self.weights = np.zeros((len(solids), 3), np.float32)
        for row, solid in enumerate(solids):
            count = len(solid.planes)
            self.material[row, :count] = solid.paint[:count]
            self.material[row, QUADRIC_FACE] = solid.paint[-1]
            self.normal[row, :count] = solid.planes[:, :3]
            self.look[row, : len(solid.look)] = solid.look
            if solid.quadric is not None:
                self.centre[row], self.weights[row] = solid.quadric

    def surface(self, hits: Hits, camera: Camera, where: np.ndarray) -> Surface:
        """The hits at the flat pixel indices `where` (n,) of `camera`."""
        east, up, north = camera.directions()
        row, column = np.divmod(where.astype(np.int32), np.int32(camera.width))
        solid, face = hits.solid.ravel()[where], hits.face.ravel()[where]
        depth = 1.0 / hits.inverse.ravel()[where]
        eye = np.asarray(camera.position, dtype=np.float32)
        x, y, z = eye[0] + depth * east[column], eye[1] + depth * up[row], eye[2] + depth * north[column]
        flat = self.normal.reshape(-1, 3)[solid.astype(np.int32) * MAX_FACES + face]
        normal = [flat[:, 0].copy(), flat[:, 1].copy(), flat[:, 2].copy()]
        round_ = np.flatnonzero(face == QUADRIC_FACE)
        if len(round_):
            centre, weights = self.centre[solid[round_]], self.weights[solid[round_]]
            point = np.stack([x[round_], y[round_], z[round_]], axis=1)
            gradient = (point - centre) * weights
            gradient /= np.sqrt((gradient**2).sum(axis=1, keepdims=True)) + 1e-9
            for axis in range(3):
                normal[axis][round_] = gradient[:, axis]
        return Surface(x, y, z, depth, (normal[0], normal[1], normal[2]), solid)
