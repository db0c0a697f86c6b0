"""PNG: libspng for the plain ones, as cameras and renderers write them; Pillow judges all others and all damage."""

import struct
import zlib

import imagecodecs
import numpy as np

from refiner_ds.data.codecs.stored import Loaded, Pixels, Stored
from refiner_ds.data.images import decode

SIGNATURE = b"\x89PNG\r\n\x1a\n"
HARMLESS = (b"pHYs", b"gAMA", b"cHRM", b"sRGB", b"sBIT", b"bKGD", b"tIME", b"tEXt")
"""Chunks that change no pixel; unlike tRNS (transparency), eXIf, iTXt and zTXt (which side is up)."""
ORIENTED = (b"Raw profile type", b"XML:")
"""Keywords of plain texts that can say which side is up."""
MOST_PIXELS = 1 << 26
"""Above, Pillow judges whether it is meant to fill the memory."""


def open_png(content: bytes | memoryview) -> Stored:
    """The picture of a PNG file, with the pixels that `images.decode` gives.

    Raises:
        PictureError: as `images.decode`.
    """
    if is_plain(content):
        try:
            return Pixels(np.asarray(imagecodecs.spng_decode(content)))
        except (RuntimeError, ValueError):
            pass  # damaged: Pillow says how, or reads it as it always did
    return Loaded(decode(content))


def is_plain(content: bytes | memoryview) -> bool:
    """Whether a PNG is RGB of 8 bits, not interlaced, and every chunk before and behind the pixels changes none."""
    if content[:8] != SIGNATURE or content[12:16] != b"IHDR" or len(content) < 33:
        return False
    length, _, width, height, *form = struct.unpack_from(">IIIIBBBBB", content, 8)
    if length != 13 or form != [8, 2, 0, 0, 0] or not 0 < width * height <= MOST_PIXELS:
        return False
    place, is_data_seen = 8, False
    while place + 12 <= len(content):
        length, name = struct.unpack_from(">I4s", content, place)
        end = place + 12 + length
        if name == b"IDAT":
            is_data_seen = True
        elif name == b"IEND":
            return is_data_seen and end == len(content)
        elif end > len(content) or not (place == 8 or _is_harmless(name, content[place + 4 : end])):
            return False
        place = end
    return False


def _is_harmless(name: bytes, chunk: bytes | memoryview) -> bool:
    """Whether a chunk, given as its name, data and crc32, is whole and changes no pixel."""
    sound = zlib.crc32(chunk[:-4]) == int.from_bytes(chunk[-4:], "big")
    return sound and name in HARMLESS and not bytes(chunk[4:20]).startswith(ORIENTED)
