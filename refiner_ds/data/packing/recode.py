"""Recoding: what is packed of a picture: its file's bytes, or its pixels in another codec, perhaps resized."""

import io
import json
from dataclasses import asdict, dataclass
from typing import Literal

import imagecodecs
import numpy as np
import PIL
from PIL import Image

from refiner_ds.data.buckets import Bucket, size_in, spelled
from refiner_ds.data.codecs import decode
from refiner_ds.data.codecs.npy import encode_npy
from refiner_ds.data.codecs.tiff import encode_tiff
from refiner_ds.data.images import PictureError

Codec = Literal["keep", "tiff", "npy", "jpeg"]
KIND_OF = {"tiff": "tif", "npy": "npy", "jpeg": "jpg"}
"""Extension of the members of each codec."""
BYTES_PER_PIXEL = {"tiff": 1.5, "npy": 3.0, "jpeg": 0.5}
"""What each takes, about, for photographs: where shards end is planned before anything is encoded."""


@dataclass(frozen=True)
class Recoding:
    """What becomes of pictures as they are packed.

    Attributes:
        codec: "keep" leaves the bytes of the file; "tiff" and "npy" keep every pixel, "jpeg" does not.
        quality: of JPEG, 1 to 100; colours are not subsampled.
        buckets: those to whose sizes pictures are resized; none leaves them at their own.
    """

    codec: Codec = "keep"
    quality: int = 95
    buckets: tuple[Bucket, ...] = ()

    @property
    def label(self) -> str:
        """What the index calls it."""
        return f"jpeg:{self.quality}" if self.codec == "jpeg" else self.codec

    @property
    def table(self) -> str | None:
        """The buckets as --buckets spells them, where pictures are resized."""
        return spelled(self.buckets) if self.buckets else None

    @property
    def identity(self) -> str:
        """Equal ones make equal bytes of equal pictures; another version of a library may not."""
        versions = [] if self.codec == "keep" else [PIL.__version__, imagecodecs.__version__]
        return json.dumps([asdict(self), *versions])

    def expected_bytes(self, width: int, height: int, size: int) -> int:
        """Bytes, about, of what is packed of a picture of width x height pixels whose file has `size` bytes."""
        if self.codec == "keep":
            return size
        width, height = size_in(width, height, self.buckets)
        return round(width * height * BYTES_PER_PIXEL[self.codec])


KEEP = Recoding()
"""Every byte stays."""


def recode(content: bytes, kind: str, recoding: Recoding) -> tuple[bytes, str]:
    """The bytes to pack of a picture file, and the extension of their member; lossless ones are read back.

    Raises:
        PictureError: it cannot be decoded, is too large for the codec, or does not read back as it was.
    """
    if recoding.codec == "keep":
        return content, kind
    pixels = resized(decode(content, kind), recoding.buckets)
    new = KIND_OF[recoding.codec]
    if recoding.codec == "jpeg":
        return _jpeg(pixels, recoding.quality), new
    packed = encode_tiff(pixels) if recoding.codec == "tiff" else encode_npy(pixels)
    if not np.array_equal(decode(packed, new), pixels):
        raise PictureError(f"reads back from {recoding.codec} with other pixels")
    return packed, new


def resized(pixels: np.ndarray, buckets: tuple[Bucket, ...]) -> np.ndarray:
    """(H, W, 3) uint8 at the size of its bucket, as training resizes it; as it is where there are no buckets."""
    height, width, _ = pixels.shape
    size = size_in(width, height, buckets)
    if size == (width, height):
        return pixels
    return np.asarray(Image.fromarray(pixels).resize(size, Image.Resampling.LANCZOS))


def _jpeg(pixels: np.ndarray, quality: int) -> bytes:
    buffer = io.BytesIO()
    try:
        Image.fromarray(pixels).save(buffer, "JPEG", quality=quality, subsampling="4:4:4")
    except OSError as error:  # of more than 65,500 pixels to a side
        raise PictureError(f"has {pixels.shape[1]}x{pixels.shape[0]} pixels, too many for JPEG") from error
    return buffer.getvalue()
