"""TIFF: lossless, in tiles as high as the picture, so that a crop decodes its own columns only.

The files are plain TIFF 6.0 (tiled RGB, zstd, horizontal differences), which Pillow and tifffile open too. What is read
is exactly what is written here: one file header fits a width, a height and the tiles' byte counts.
"""

import struct
from collections.abc import Sequence
from itertools import accumulate

import imagecodecs
import numpy as np

from refiner_ds.data.codecs.stored import Stored
from refiner_ds.data.images import PictureError

TILE_WIDTH = 128
"""Columns of a tile; of 128 to 320, the fastest for crops of 512, and no larger."""
LEVEL = 2
"""Of zstd: decoding takes as long at any, and higher ones gain a percent of size for twice the time of packing."""
MOST_PIXELS = 1 << 28
"""Larger pictures are damage, which must not fill the memory."""
SHORT, LONG = 3, 4
TAGS = 12
WIDTH_AT, HEIGHT_AT = 18, 30
"""Bytes at which the two tags that come first have their values."""
TABLES_AT = 8 + 2 + 12 * TAGS + 4 + 8
"""Where the tables of tiles begin: behind the file's header, its tags, and three numbers of bits."""


def encode_tiff(pixels: np.ndarray) -> bytes:
    """A TIFF file of (H, W, 3) uint8 RGB; equal pixels give equal bytes, with one version of imagecodecs.

    Raises:
        PictureError: there are more pixels than are read again.
    """
    height, width, _ = pixels.shape
    if width * height > MOST_PIXELS:
        raise PictureError(f"has {width}x{height} pixels, more than {MOST_PIXELS}")
    tiles = []
    for first in range(0, width, TILE_WIDTH):
        tile = np.zeros((_tile_height(height), TILE_WIDTH, 3), np.uint8)
        part = pixels[:, first : first + TILE_WIDTH]
        tile[:height, : part.shape[1]] = part
        tiles.append(imagecodecs.zstd_encode(imagecodecs.delta_encode(tile, axis=1).tobytes(), level=LEVEL))
    return b"".join([_header(width, height, [len(tile) for tile in tiles]), *tiles])


class Tiff(Stored):
    """A picture that `encode_tiff` wrote; nothing is decoded before columns are asked for."""

    def __init__(self, content: bytes | memoryview) -> None:
        """Raises PictureError if it is no such file, or cut."""
        self._content = memoryview(content)
        if len(content) < TABLES_AT:
            raise PictureError("ends within its TIFF header")
        (width,), (height,) = (struct.unpack_from("<I", content, at) for at in (WIDTH_AT, HEIGHT_AT))
        super().__init__(width, height)
        counts = self._counts()
        header = _header(width, height, counts) if counts and sum(counts) < len(content) else b""
        if not header or self._content[: len(header)] != header or len(header) + sum(counts) != len(content):
            raise PictureError("is not a TIFF as `refiner-ds pack --recode tiff` writes it, or it was cut or damaged")
        self._bounds = list(accumulate(counts, initial=len(header)))

    def _counts(self) -> tuple[int, ...]:
        """Bytes of the tiles, from where they stand if width and height are what they seem; none where they are not."""
        tiles = -(-self.width // TILE_WIDTH)
        if not 0 < self.width * self.height <= MOST_PIXELS or len(self._content) < TABLES_AT + 8 * tiles:
            return ()
        return struct.unpack_from(f"<{tiles}I", self._content, _tables_of(tiles)[1])

    def columns(self, first: int, last: int) -> np.ndarray:
        found = np.empty((self.height, last - first, 3), np.uint8)
        tile = np.empty(_tile_height(self.height) * TILE_WIDTH * 3, np.uint8)
        for number in range(first // TILE_WIDTH, -(-last // TILE_WIDTH)):
            self._inflate(number, tile)
            start = number * TILE_WIDTH
            left, right = max(first, start), min(last, start + TILE_WIDTH)
            differences = tile.reshape(-1, TILE_WIDTH, 3)[: self.height, : right - start]
            if left == start:
                imagecodecs.delta_decode(differences, axis=1, out=found[:, left - first : right - first])
            else:
                found[:, : right - first] = imagecodecs.delta_decode(differences, axis=1)[:, left - start :]
        return found

    def _inflate(self, number: int, tile: np.ndarray) -> None:
        """Fills in a tile's differences, (bytes of a tile,) uint8."""
        try:
            content = self._content[self._bounds[number] : self._bounds[number + 1]]
            found = imagecodecs.zstd_decode(content, out=tile)
        except (RuntimeError, ValueError) as error:
            raise PictureError(f"has a damaged tile {number} ({error})") from error
        if len(found) != len(tile):
            raise PictureError(f"has a damaged tile {number} ({len(found)} of {len(tile)} bytes)")


def _tile_height(height: int) -> int:
    """The height of a picture as TIFF asks for it: a multiple of 16."""
    return height + -height % 16


def _tables_of(tiles: int) -> tuple[int, int, int]:
    """Where the tiles' offsets stand, their byte counts, and the tiles; one tile's numbers stand in their tags."""
    if tiles == 1:
        return 8 + 2 + 12 * (TAGS - 2) + 8, 8 + 2 + 12 * (TAGS - 1) + 8, TABLES_AT
    return TABLES_AT, TABLES_AT + 4 * tiles, TABLES_AT + 8 * tiles


def _header(width: int, height: int, counts: Sequence[int]) -> bytes:
    """All that stands before the first tile: the file's header, its tags in order, and their tables."""
    tiles = len(counts)
    offsets_at, counts_at, tiles_at = _tables_of(tiles)
    offsets = list(accumulate(counts, initial=tiles_at))[:-1]
    tags = [
        (256, LONG, 1, width),
        (257, LONG, 1, height),
        (258, SHORT, 3, TABLES_AT - 8),  # BitsPerSample
        (259, SHORT, 1, 50000),  # Compression: zstd
        (262, SHORT, 1, 2),  # PhotometricInterpretation: RGB
        (277, SHORT, 1, 3),  # SamplesPerPixel
        (284, SHORT, 1, 1),  # PlanarConfiguration: interleaved
        (317, SHORT, 1, 2),  # Predictor: horizontal differences
        (322, LONG, 1, TILE_WIDTH),
        (323, LONG, 1, _tile_height(height)),
        (324, LONG, tiles, offsets_at if tiles > 1 else offsets[0]),
        (325, LONG, tiles, counts_at if tiles > 1 else counts[0]),
    ]
    head = struct.pack("<2sHIH", b"II", 42, 8, len(tags)) + b"".join(struct.pack("<HHII", *tag) for tag in tags)
    tables = struct.pack(f"<{2 * tiles}I", *offsets, *counts) if tiles > 1 else b""
    return head + struct.pack("<I4H", 0, 8, 8, 8, 0) + tables
