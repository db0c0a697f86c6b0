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


def recipe(files: Mapping[str, Any], bucket: Bucket, x: int | None = None) -> dict[str, Tensor]:
    """(3, H, H) fp32 in [-1, 1] by view, from the path or the bytes of a picture each.

    Every picture is decoded and resized to the whole bucket with Lanczos, made an array, and only then cropped.

    Args:
        x: left edge of the crop; drawn where not given.
    """
    if x is None:
        x = random.randint(0, bucket.width - bucket.height)
    views = {}
    for view, file in files.items():
        picture: Image.Image = Image.open(file if isinstance(file, str) else io.BytesIO(file))
        if picture.mode != "RGB":
            picture = picture.convert("RGB")
        whole = np.array(picture.resize((bucket.width, bucket.height), Image.Resampling.LANCZOS))
        crop = whole[:, x : x + bucket.height]
        views[view] = torch.from_numpy(crop).float().div(127.5).sub(1.0).movedim(-1, 0)
    return views
