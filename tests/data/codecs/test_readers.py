"""Readers of stored pictures: what other programs read too, the pixels of Pillow, and words for damage of any kind."""

import io
import random
import struct
import zlib

import numpy as np
import pytest
import tifffile
from PIL import Image, PngImagePlugin

from refiner_ds.data import images
from refiner_ds.data.codecs import decode, png
from refiner_ds.data.codecs.npy import encode_npy
from refiner_ds.data.codecs.tiff import encode_tiff
from refiner_ds.data.images import PictureError

SIZES = ((1, 1), (16, 9), (127, 33), (128, 16), (129, 17), (257, 40))
"""One tile, one tile and a column, three; heights that are multiples of 16 and not."""


def noise(size: tuple[int, int]) -> np.ndarray:
    return np.random.default_rng(size).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)


def png_of(pixels: np.ndarray, mode: str = "RGB", **settings) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).convert(mode).save(buffer, "PNG", **settings)
    return buffer.getvalue()


def flips_of(content: bytes, places: range | list[int]):
    for place in places:
        for bit in range(8):
            yield content[:place] + bytes([content[place] ^ (1 << bit)]) + content[place + 1 :]


@pytest.mark.parametrize("size", SIZES, ids=str)
def test_a_tiff_is_one_for_pillow_and_tifffile_too(size):
    content = encode_tiff(noise(size))
    assert np.array_equal(decode(content, "tif"), noise(size))
    assert np.array_equal(decode(memoryview(content), "tif"), noise(size))
    assert np.array_equal(Image.open(io.BytesIO(content)), noise(size))
    assert np.array_equal(tifffile.imread(io.BytesIO(content)), noise(size))
    with tifffile.TiffFile(io.BytesIO(content)) as file:
        page = file.pages[0]
        assert page.is_tiled and page.compression.name == "ZSTD" and page.predictor.name == "HORIZONTAL"


@pytest.mark.parametrize("size", SIZES, ids=str)
def test_an_npy_is_what_numpy_writes_and_is_not_copied(size):
    buffer = io.BytesIO()
    np.save(buffer, noise(size))
    content = encode_npy(noise(size))
    assert content == buffer.getvalue()
    found = decode(content, "npy")
    assert np.array_equal(found, noise(size)) and not found.flags.owndata and not found.flags.writeable


@pytest.mark.parametrize("encode", [encode_tiff, encode_npy])
def test_flipped_bits_give_pixels_or_a_sentence_and_nothing_else(encode):
    content, kind = encode(noise((300, 20))), "tif" if encode is encode_tiff else "npy"
    choose, told = random.Random(0), 0
    places = [*range(250), *(choose.randrange(250, len(content)) for _ in range(300))]
    for flipped in flips_of(content, places):
        try:
            assert decode(flipped, kind).dtype == np.uint8  # of another width, where that was flipped
        except PictureError:
            told += 1
    assert told > 1000


@pytest.mark.parametrize("encode", [encode_tiff, encode_npy])
def test_what_is_cut_or_longer_or_something_else_is_told(encode):
    content, kind = encode(noise((140, 20))), "tif" if encode is encode_tiff else "npy"
    for wrong in [*(content[:length] for length in range(0, len(content), 7)), content + b"\0", png_of(noise((9, 9)))]:
        with pytest.raises(PictureError):
            decode(wrong, kind)


@pytest.mark.parametrize(
    ("at", "words"), [(18, "as `refiner-ds pack --recode tiff` writes it"), (30, "cut or damaged")]
)
def test_a_tiff_that_would_fill_the_memory_is_told(at, words):
    content = bytearray(encode_tiff(noise((140, 20))))
    content[at : at + 4] = b"\xff\xff\xff\xff"
    with pytest.raises(PictureError, match=words):
        decode(bytes(content), "tif")


def test_a_tiff_of_another_program_is_told():
    buffer = io.BytesIO()
    Image.fromarray(noise((140, 20))).save(buffer, "TIFF")
    with pytest.raises(PictureError, match="is not a TIFF as `refiner-ds pack --recode tiff` writes it"):
        decode(buffer.getvalue(), "tif")


def test_an_npy_of_something_else_is_told():
    buffer = io.BytesIO()
    np.save(buffer, np.zeros((4, 4, 3), np.float32))
    with pytest.raises(PictureError, match=r"is no npy of \(H, W, 3\) uint8; pack the pictures again"):
        decode(buffer.getvalue(), "npy")
    with pytest.raises(PictureError, match=r"has 11 bytes of pixels instead of 12"):
        decode(encode_npy(noise((2, 2)))[:-1], "npy")


def chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def texts(**pairs: str) -> PngImagePlugin.PngInfo:
    info = PngImagePlugin.PngInfo()
    for key, value in pairs.items():
        info.add_text(key.replace("_", " "), value)
    return info


def oriented() -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = 6
    return exif


PICTURE = noise((31, 14))
PLAIN = {
    "bare": png_of(PICTURE),
    "dots per inch": png_of(PICTURE, dpi=(72, 72)),
    "a text": png_of(PICTURE, pnginfo=texts(Software="a renderer")),
    "hardly compressed": png_of(PICTURE, compress_level=0),
}
OTHER = {
    "grey": png_of(PICTURE, "L"),
    "palette": png_of(PICTURE, "P"),
    "alpha": png_of(PICTURE, "RGBA"),
    "turned": png_of(PICTURE, exif=oriented()),
    "turned behind the pixels": png_of(PICTURE)[:-12] + chunk(b"eXIf", oriented().tobytes()) + chunk(b"IEND", b""),
    "turned by a text": png_of(PICTURE, pnginfo=texts(Raw_profile_type_exif="x")),
    "an unused transparent colour": png_of(np.zeros((4, 4, 3), np.uint8), transparency=(9, 9, 9)),
    "something behind its end": png_of(PICTURE) + b"\0",
}


@pytest.mark.parametrize("name", [*PLAIN, *OTHER])
def test_a_png_has_the_pixels_of_pillow(name):
    content = {**PLAIN, **OTHER}[name]
    assert png.is_plain(content) == (name in PLAIN)
    assert np.array_equal(decode(content, "png"), np.asarray(images.decode(content)))
    assert np.array_equal(decode(memoryview(content), "png"), np.asarray(images.decode(content)))


def verdict(decoded) -> bytes | str:
    try:
        return np.asarray(decoded()).tobytes()
    except PictureError as error:
        return str(error)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", PLAIN)
def test_damage_of_a_png_is_judged_as_pillow_does(name):
    content = PLAIN[name]
    choose = random.Random(0)
    places = [*range(100), *(choose.randrange(len(content)) for _ in range(100))]
    for damaged in [*flips_of(content, places), *(content[:length] for length in range(0, len(content), 11))]:
        assert verdict(lambda: decode(damaged, "png")) == verdict(lambda: images.decode(damaged))  # noqa: B023
