"""What the baseline does with a sample, re-written from its description: whole pictures are resized, then cropped."""

import io
import random
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from refiner_ds.data.buckets import Bucket


def recipe(
    files: Mapping[str, Any], bucket: Bucket, x: int | None = None, crop_width: int | None = None
) -> dict[str, Tensor]:
    """(3, H, W) fp32 in [-1, 1] by view, from the path or the bytes of a picture each.

    Every picture is decoded and resized to the whole bucket with Lanczos, made an array, and only then cropped.

    Args:
        x: left edge of the crop; drawn where not given.
        crop_width: W, pixels; the bucket's height where not given, so that the crop is square.
    """
    width = crop_width or bucket.height
    if x is None:
        x = random.randint(0, bucket.width - width)
    views = {}
    for view, file in files.items():
        picture: Image.Image = Image.open(file if isinstance(file, str) else io.BytesIO(file))
        if picture.mode != "RGB":
            picture = picture.convert("RGB")
        whole = np.array(picture.resize((bucket.width, bucket.height), Image.Resampling.LANCZOS))
        crop = whole[:, x : x + width]
        views[view] = torch.from_numpy(crop).float().div(127.5).sub(1.0).movedim(-1, 0)
    return views
