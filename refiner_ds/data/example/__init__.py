"""The example data: a procedural street as a rectified stereo pair sees it, with splat renderings to repair.

Nothing here is needed for training on pictures of your own.
"""

from refiner_ds.data.example.frames import Frame, draw_frames
from refiner_ds.data.example.write import write_example

__all__ = ["Frame", "draw_frames", "write_example"]
