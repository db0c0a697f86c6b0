"""Pictures: what counts as one, and how it becomes RGB. Knows no shard and no tensor."""

import io

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from refiner_ds.errors import UserError

EXTENSIONS = {"PNG": "png", "JPEG": "jpg", "WEBP": "webp"}
"""Formats that are packed, and the member extension of each."""


class PictureError(UserError):
    """A picture that cannot be used, and why; whoever holds its name says it."""


def decode(content: bytes | memoryview) -> Image.Image:
    """An RGB picture, turned upright by its EXIF orientation, from the bytes of a PNG, JPEG or WebP file.

    Grey, palette and CMYK pictures become RGB; an alpha channel that is opaque everywhere is dropped.

    Raises:
        PictureError: no picture, cut off, another format, 16 bits or floats a channel, or transparent pixels.
    """
    picture = _load(content)
    if picture.mode in ("I", "F") or picture.mode.startswith("I;16"):
        raise PictureError(
            f"has mode {picture.mode} (16 bits or more a channel, as depth maps have); save it with 8 bits a channel"
        )
    if picture.mode in ("RGBA", "LA", "PA") or "transparency" in picture.info:
        picture = picture.convert("RGBA")
        if np.asarray(picture.getchannel("A")).min() < 255:
            raise PictureError("has transparent pixels, whose colour is undefined; flatten it onto a background")
    return picture.convert("RGB")


def _load(content: bytes | memoryview) -> Image.Image:
    """The picture as it is stored, but upright."""
    try:
        picture = Image.open(io.BytesIO(content))
        if picture.format in EXTENSIONS:
            picture.load()
    except UnidentifiedImageError as error:  # whose own words name the buffer
        raise PictureError("is no readable picture (of no known format); save it as PNG, JPEG or WebP") from error
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise PictureError(f"is no readable picture ({error})") from error
    if picture.format not in EXTENSIONS:
        raise PictureError(f"is a {picture.format}; save it as PNG, JPEG or WebP")
    try:
        return ImageOps.exif_transpose(picture)
    except Exception as error:  # of many kinds: whatever Pillow comes upon in a broken EXIF
        raise PictureError("has a broken EXIF, so which side is up is unknown; save it anew") from error


def extension_of(content: bytes) -> str:
    """The member extension for the bytes of a picture, by its format and not by its name."""
    with Image.open(io.BytesIO(content)) as picture:
        return EXTENSIONS[str(picture.format)]


def to_array(picture: Image.Image) -> np.ndarray:
    """(3, H, W) uint8 from an RGB picture of W x H pixels."""
    return np.ascontiguousarray(np.asarray(picture).transpose(2, 0, 1))
