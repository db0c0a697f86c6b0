"""Pictures: which bucket they fall into, how they become RGB, what is refused in which words."""

import contextlib
import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from refiner_ds.config.training import BUCKETS
from refiner_ds.data.buckets import bucket_of, parse_buckets
from refiner_ds.data.images import PictureError, decode, extension_of
from refiner_ds.errors import UserError

COLOURS = np.array([[[255, 0, 0], [0, 255, 0]], [[0, 0, 255], [255, 255, 255]], [[0, 0, 0], [200, 100, 50]]], np.uint8)
NOISE = np.random.default_rng(0).integers(0, 256, (24, 32, 3), dtype=np.uint8)
UPRIGHT = Image.Transpose
STORED = {
    1: None,
    2: UPRIGHT.FLIP_LEFT_RIGHT,
    3: UPRIGHT.ROTATE_180,
    4: UPRIGHT.FLIP_TOP_BOTTOM,
    5: UPRIGHT.TRANSPOSE,
    6: UPRIGHT.ROTATE_90,
    7: UPRIGHT.TRANSVERSE,
    8: UPRIGHT.ROTATE_270,
}
"""How a camera stores an upright picture, by the orientation that it writes into EXIF."""


def content_of(picture: Image.Image, kind: str = "PNG", **settings) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, kind, **settings)
    return buffer.getvalue()


def png_of_16_bits(pixels: np.ndarray) -> bytes:
    """A PNG with 16 bits a channel from (H, W, 3) uint16, which Pillow reads but does not write."""
    height, width, _ = pixels.shape
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in pixels)
    header = struct.pack(">IIBBBBB", width, height, 16, 2, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(rows)), (b"IEND", b""))
    parts = (struct.pack(">I", len(d)) + n + d + struct.pack(">I", zlib.crc32(n + d)) for n, d in chunks)
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


@pytest.mark.parametrize(
    ("width", "height", "bucket"),
    [
        (640, 480, "640x480"),
        (960, 720, "640x480"),
        (1408, 376, "1917x512"),
        (300, 900, "640x480"),
        (9000, 9, "1917x512"),
    ],
)
def test_the_guides_buckets_take_pictures_by_the_nearest_aspect(width, height, bucket):
    buckets = parse_buckets(BUCKETS)
    assert str(buckets[bucket_of(width, height, buckets)]) == bucket


def test_between_two_buckets_the_keys_decide_and_not_the_sizes():
    buckets = parse_buckets("1.5:640x480,3.66:1917x512")
    assert [bucket_of(width, 1000, buckets) for width in (2570, 2590)] == [0, 1]
    assert bucket_of(2000, 1000, parse_buckets("1:64x64,3:64x64")) == 0, "the first of equally near ones"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("640x480", r"--buckets '640x480' is no KEY:WIDTHxHEIGHT.*write e.g. 1.5:640x480"),
        ("1.5:640", r"'1.5:640' is no KEY:WIDTHxHEIGHT"),
        ("1.5:640x480,", r"'' is no KEY:WIDTHxHEIGHT"),
        ("wide:640x480", r"'wide:640x480' is no KEY:WIDTHxHEIGHT"),
        ("1:64x0", r"'1:64x0' has a number that is not positive, so pictures cannot be sized"),
        ("1:0x64", r"'1:0x64' has a number that is not positive"),
        *((f"{key}:64x64", rf"'{key}:64x64' has a number that is not positive") for key in ("nan", "-1", "0", "inf")),
        ("1:64x64,1.0:96x64", r"'1:64x64,1.0:96x64' gives two buckets one key, so one of them stays empty; give each"),
        ("1.5:640x480,0.5:64x128", r"'0.5:64x128' is higher than wide, and crops are squares.*give WIDTH >= HEIGHT"),
    ],
)
def test_buckets_that_cannot_be_are_refused_by_name(text, words):
    with pytest.raises(UserError, match=words):
        parse_buckets(text)


@pytest.mark.parametrize("kind", ["PNG", "WEBP"])
def test_lossless_rgb_keeps_every_value(kind):
    assert np.array_equal(decode(content_of(Image.fromarray(NOISE), kind, lossless=True)), NOISE)


@pytest.mark.parametrize("mode", ["L", "1", "LA"])
def test_grey_becomes_three_equal_channels(mode):
    grey = Image.fromarray(COLOURS[..., 0]).convert(mode)
    expected = np.asarray(grey.convert("L"))
    assert np.array_equal(decode(content_of(grey)), np.repeat(expected[..., None], 3, axis=2))


def test_palette_and_opaque_alpha_become_their_colours():
    picture = Image.fromarray(COLOURS)
    assert np.array_equal(decode(content_of(picture.quantize(8))), COLOURS)
    assert np.array_equal(decode(content_of(picture.convert("RGBA"))), COLOURS)
    assert np.array_equal(decode(content_of(picture.quantize(8), transparency=255)), COLOURS), "an unused colour"


def test_a_cmyk_jpeg_gets_its_colours_and_not_their_negative():
    inks = {(0, 255, 255, 0): (255, 0, 0), (255, 0, 255, 0): (0, 255, 0), (0, 0, 0, 0): (255, 255, 255)}
    for ink, expected in inks.items():
        found = decode(content_of(Image.new("CMYK", (16, 16), ink), "JPEG", quality=95))
        assert found.mode == "RGB" and np.abs(np.asarray(found, int) - expected).max() <= 4


def test_colours_of_16_bits_are_rounded_to_8():
    assert np.abs(np.asarray(decode(png_of_16_bits(COLOURS.astype(np.uint16) * 257)), int) - COLOURS).max() <= 1


@pytest.mark.parametrize("kind", ["PNG", "WEBP"])
@pytest.mark.parametrize("orientation", STORED)
def test_pictures_are_turned_upright(kind, orientation):
    upright, exif = Image.fromarray(NOISE), Image.Exif()
    exif[0x0112] = orientation
    stored = upright.transpose(STORED[orientation]) if STORED[orientation] is not None else upright
    assert np.array_equal(decode(content_of(stored, kind, lossless=True, exif=exif)), NOISE)


CUT_OFF = content_of(Image.fromarray(NOISE))[:-400]
HOLE = Image.merge(
    "RGBA", [*Image.fromarray(COLOURS).split(), Image.fromarray(np.array([[255, 255]] * 2 + [[255, 254]], np.uint8))]
)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "is no readable picture"),
        (b"a list of the pictures I meant to send", "is no readable picture"),
        (CUT_OFF, "is no readable picture"),
        (content_of(Image.fromarray(NOISE), "JPEG")[:300], "is no readable picture"),
        (content_of(Image.fromarray(NOISE), "GIF"), "is a GIF; save it as PNG, JPEG or WebP"),
        (content_of(Image.fromarray(NOISE), "GIF")[:900], "is a GIF; save it as PNG, JPEG or WebP"),
        (content_of(Image.fromarray(NOISE), "TIFF"), "is a TIFF; save it as PNG, JPEG or WebP"),
        (content_of(Image.new("I;16", (4, 4), 900)), r"has mode I;16 \(16 bits or more.*save it with 8 bits a channel"),
        (content_of(HOLE), "has transparent pixels, whose colour is undefined; flatten it onto a background"),
        (content_of(Image.fromarray(COLOURS).quantize(8), transparency=0), "has transparent pixels"),
        (content_of(Image.fromarray(COLOURS), transparency=(255, 0, 0)), "has transparent pixels"),
    ],
)
def test_what_would_train_wrongly_is_refused_in_words(content, words):
    with pytest.raises(PictureError, match=words):
        decode(content)


def test_the_sentence_about_no_picture_is_for_people():
    with pytest.raises(PictureError) as caught:
        decode(b"no picture")
    assert "BytesIO" not in str(caught.value)


def test_a_broken_entry_of_the_exif_is_no_traceback():
    exif = Image.Exif()
    exif[0x0112], exif[0x010F] = 6, "me"
    content = content_of(Image.fromarray(NOISE), "JPEG", exif=exif)
    maker, width = struct.pack(">H", 0x010F), struct.pack(">H", 0x0120)
    assert content.count(maker) == 1
    with contextlib.suppress(PictureError):
        assert decode(content.replace(maker, width)).mode == "RGB"


def test_a_float_picture_is_refused_in_words():
    with pytest.raises(PictureError, match="is a TIFF; save it as PNG"):
        decode(content_of(Image.new("F", (4, 4), 0.5), "TIFF"))


@pytest.mark.parametrize(("kind", "extension"), [("PNG", "png"), ("JPEG", "jpg"), ("WEBP", "webp")])
def test_the_extension_follows_the_content(kind, extension):
    assert extension_of(content_of(Image.fromarray(NOISE), kind)) == extension
