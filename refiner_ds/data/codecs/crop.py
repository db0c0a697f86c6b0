"""Crops: the square of a bucket-sized picture that training takes, by Lanczos, from no more than it needs."""

import math
from collections.abc import Callable

import numpy as np
from PIL import Image

from refiner_ds.data.buckets import Bucket
from refiner_ds.data.codecs.stored import Stored

LANCZOS = Image.Resampling.LANCZOS
SUPPORT = 3
"""Pixels that the filter reaches to either side, of the source or of the result, whichever are larger."""


def crop(picture: Stored, bucket: Bucket, x: int, resampling: str) -> np.ndarray:
    """The square of the bucket's height that starts x pixels from the left of the picture, resized to the bucket.

    A picture of the bucket's size is not resized.

    Args:
        resampling: "exact" or "window", see there.

    Returns:
        (height, height, 3) uint8 RGB.

    Raises:
        PictureError: the bytes are damaged.
    """
    if (picture.width, picture.height) == (bucket.width, bucket.height):
        return picture.columns(x, x + bucket.height)
    return RESAMPLINGS[resampling](picture, bucket, x)


def exact(picture: Stored, bucket: Bucket, x: int) -> np.ndarray:
    """Bit for bit what resizing the whole picture and then cutting gives.

    Pillow resizes columns first and then rows, with 8 bits between, so that the rows need the cut columns only. Where
    rows become fewer it may begin with them, from version 13 on (pull request 9549), and all is left to it.
    """
    side, whole = bucket.height, picture.image(0, picture.width)
    if picture.height > side:
        return np.asarray(whole.resize((bucket.width, side), LANCZOS).crop((x, 0, x + side, side)))
    wide = whole.resize((bucket.width, picture.height), LANCZOS)
    return np.asarray(wide.crop((x, 0, x + side, picture.height)).resize((side, side), LANCZOS))


def window(picture: Stored, bucket: Bucket, x: int) -> np.ndarray:
    """The same from the columns only that the filter reaches: about twice as fast, and off in few values.

    Pillow keeps the window's place in 32-bit floats, so that a few filter weights are rounded differently: off by
    1/255, seldom 2/255, in fewer than 1 of 2,000 values of photographs and 1 of 500 of noise. Where rows become fewer
    it is `exact`, as the order of rows and columns would otherwise be another one.
    """
    side, scale = bucket.height, picture.width / bucket.width
    if picture.height > side:
        return exact(picture, bucket, x)
    left, right = x * scale, (x + side) * scale
    margin = SUPPORT * max(scale, 1) + 1
    first, last = max(0, math.floor(left - margin)), min(picture.width, math.ceil(right + margin))
    box = (left - first, 0, min(right, last) - first, picture.height)
    return np.asarray(picture.image(first, last).resize((side, side), LANCZOS, box=box))


RESAMPLINGS: dict[str, Callable[[Stored, Bucket, int], np.ndarray]] = {"exact": exact, "window": window}
"""Ways to resize, by what --resampling calls them."""
