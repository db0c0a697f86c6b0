"""Codecs: stored pictures become pixels, whole or as the crop that training takes. Knows no shard and no tensor."""

from collections.abc import Callable

import numpy as np

from refiner_ds.data import images
from refiner_ds.data.buckets import Bucket
from refiner_ds.data.codecs.crop import crop
from refiner_ds.data.codecs.npy import open_npy
from refiner_ds.data.codecs.png import open_png
from refiner_ds.data.codecs.stored import Loaded, Stored
from refiner_ds.data.codecs.tiff import Tiff

__all__ = ["OPENERS", "cut", "decode"]


def _open_by_pillow(content: bytes | memoryview) -> Stored:
    return Loaded(images.decode(content))


OPENERS: dict[str, Callable[[bytes | memoryview], Stored]] = {
    "png": open_png,
    "jpg": _open_by_pillow,
    "webp": _open_by_pillow,
    "tif": Tiff,
    "npy": open_npy,
}
"""What reads a picture, by the extension of its member."""


def decode(content: bytes | memoryview, kind: str) -> np.ndarray:
    """(H, W, 3) uint8 RGB: a picture at the size at which it is stored; perhaps a view that must not be written.

    Args:
        kind: extension of its member, one of index.KINDS.

    Raises:
        PictureError: the bytes are no usable picture of that kind.
    """
    picture = OPENERS[kind](content)
    return picture.columns(0, picture.width)


def cut(
    content: bytes | memoryview, kind: str, bucket: Bucket, x: int, out: np.ndarray, resampling: str = "exact"
) -> None:
    """Fills (H, H, 3) uint8 RGB with the square, H the bucket's height, that starts x pixels from the left.

    The square is that of the picture resized to the bucket; one that is stored at the bucket's size is only cut.

    Args:
        kind: extension of its member, one of index.KINDS.
        out: any view, also a mirrored one.
        resampling: "exact", bit for bit as resizing whole and then cutting gives, or "window", faster and off by
            1/255 or 2/255 in few values, see `crop.window`.

    Raises:
        PictureError: the bytes are no usable picture of that kind.
    """
    out[...] = crop(OPENERS[kind](content), bucket, x, resampling)
