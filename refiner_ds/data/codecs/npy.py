"""npy: bare pixels behind the header of numpy, so that a crop is read where it lies."""

import re

import numpy as np

from refiner_ds.data.codecs.stored import Pixels
from refiner_ds.data.images import PictureError

FORM = re.compile(
    rb"\x93NUMPY\x01\x00(..)(\{'descr': '\|u1', 'fortran_order': False, 'shape': \((\d+), (\d+), 3\), \} *\n)", re.S
)
"""The header that numpy writes: two bytes of length, then a text that ends where the pixels begin."""


def encode_npy(pixels: np.ndarray) -> bytes:
    """The bytes of what numpy.save writes of (H, W, 3) uint8."""
    text = f"{{'descr': '|u1', 'fortran_order': False, 'shape': {pixels.shape}, }}"
    text += " " * (-(10 + len(text) + 1) % 64) + "\n"
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text.encode() + pixels.tobytes()


def open_npy(content: bytes | memoryview) -> Pixels:
    """The picture of an npy file of (H, W, 3) uint8; no byte of it is copied.

    Raises:
        PictureError: it holds something else, or not as many bytes as it says.
    """
    header = FORM.match(content)
    if not header or len(header[2]) != int.from_bytes(header[1], "little"):
        raise PictureError("is no npy of (H, W, 3) uint8; pack the pictures again")
    height, width = int(header[3]), int(header[4])
    if not height * width or len(content) != header.end() + height * width * 3:
        raise PictureError(f"has {len(content) - header.end()} bytes of pixels instead of {height * width * 3}")
    return Pixels(np.frombuffer(content, np.uint8, offset=header.end()).reshape(height, width, 3))
