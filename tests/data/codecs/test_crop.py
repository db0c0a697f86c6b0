"""Crops: those of the picture that is resized whole, to the bit or within a stated bound, from every codec."""

import io
import random

import numpy as np
import pytest
from PIL import Image

from refiner_ds.config.training import BUCKETS
from refiner_ds.data.buckets import Bucket, parse_buckets
from refiner_ds.data.codecs import OPENERS, cut, decode
from refiner_ds.data.codecs.npy import encode_npy
from refiner_ds.data.codecs.tiff import encode_tiff
from refiner_ds.data.example import draw_frames
from refiner_ds.data.index import KINDS
from refiner_ds.data.latents import LATENTS

LANCZOS = Image.Resampling.LANCZOS
SMALL = (Bucket(1.0, 64, 64), Bucket(1.5, 96, 64), Bucket(2.0, 201, 100))
SIZES = ((97, 33), (33, 97), (64, 64), (96, 64), (301, 211), (130, 64), (96, 31), (400, 40))
"""Odd, equal to a bucket or to one side of it; larger and smaller than it in either direction."""


def encoded(pixels: np.ndarray, kind: str) -> bytes:
    if kind in ("tif", "npy"):
        return {"tif": encode_tiff, "npy": encode_npy}[kind](pixels)
    buffer = io.BytesIO()
    name, settings = {"png": ("PNG", {}), "jpg": ("JPEG", {"quality": 95}), "webp": ("WEBP", {"lossless": True})}[kind]
    Image.fromarray(pixels).save(buffer, name, **settings)
    return buffer.getvalue()


def resized(pixels: np.ndarray, bucket: Bucket) -> np.ndarray:
    return np.asarray(Image.fromarray(pixels).resize((bucket.width, bucket.height), LANCZOS))


def places_of(bucket: Bucket, count: int, choose: random.Random) -> set[int]:
    last = bucket.width - bucket.height
    return {0, last, *(choose.randint(0, last) for _ in range(count))}


def crop_of(content: bytes, kind: str, bucket: Bucket, x: int, resampling: str) -> np.ndarray:
    out = np.zeros((bucket.height, bucket.height, 3), np.uint8)
    cut(content, kind, bucket, x, out, resampling)
    return out


def noise(size: tuple[int, int], seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)


def street(size: tuple[int, int]) -> np.ndarray:
    return next(draw_frames(1, (size,))).gt


def test_there_is_an_opener_for_every_kind():
    assert {*OPENERS} == {*KINDS} - {LATENTS}


@pytest.mark.parametrize("kind", OPENERS)
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_exact_crops_are_those_of_the_whole_resized_picture(kind, size):
    choose, content = random.Random(repr((kind, size))), encoded(noise(size), kind)
    pixels = decode(content, kind)
    for bucket in SMALL:
        whole = resized(pixels, bucket)
        for x in places_of(bucket, 4, choose):
            assert np.array_equal(crop_of(content, kind, bucket, x, "exact"), whole[:, x : x + bucket.height])


@pytest.mark.parametrize(("size", "kind"), [((1408, 376), "png"), ((640, 480), "tif"), ((1000, 700), "tif")], ids=str)
def test_crops_of_the_guides_buckets_are_exact_or_off_by_no_more_than_is_told(size, kind):
    choose, content = random.Random(repr(size)), encoded(street(size), kind)
    pixels = decode(content, kind)
    for bucket in parse_buckets(BUCKETS):
        whole, off = resized(pixels, bucket), []
        for x in places_of(bucket, 2, choose):
            expected = whole[:, x : x + bucket.height]
            assert np.array_equal(crop_of(content, kind, bucket, x, "exact"), expected)
            off.append(np.abs(crop_of(content, kind, bucket, x, "window").astype(int) - expected))
        assert np.max(off) <= 2 and np.mean(np.array(off) > 0) < 1 / 2000


@pytest.mark.parametrize("size", SIZES, ids=str)
def test_windows_of_noise_stay_within_their_bound(size):
    content, off = encode_tiff(noise(size)), []
    for bucket in SMALL:
        whole = resized(noise(size), bucket)
        for x in places_of(bucket, 12, random.Random(0)):
            difference = crop_of(content, "tif", bucket, x, "window").astype(int) - whole[:, x : x + bucket.height]
            off.append(np.abs(difference).ravel())
    found = np.concatenate(off)
    assert found.max() <= 2 and np.mean(found > 0) < 1 / 500


@pytest.mark.parametrize("kind", ["tif", "npy", "png"])
@pytest.mark.parametrize("resampling", ["exact", "window"])
def test_pictures_of_the_buckets_size_are_only_cut(kind, resampling):
    bucket = Bucket(3.0, 421, 128)
    pixels = noise((421, 128))
    for x in (0, 1, 127, 128, 129, 200, 292, 293):
        found = crop_of(encoded(pixels, kind), kind, bucket, x, resampling)
        assert np.array_equal(found, pixels[:, x : x + 128])


def test_a_mirrored_view_is_filled_in_as_well():
    bucket, pixels = SMALL[1], noise((96, 64))
    out = np.zeros((64, 64, 3), np.uint8)
    cut(encode_tiff(pixels), "tif", bucket, 7, out[:, ::-1])
    assert np.array_equal(out[:, ::-1], pixels[:, 7:71])


def test_a_crop_decodes_no_more_tiles_than_it_meets(monkeypatch):
    content, inflated = encode_tiff(noise((1917, 32))), []
    tiff = type(OPENERS["tif"](content))
    inflate = tiff._inflate
    monkeypatch.setattr(tiff, "_inflate", lambda self, n, tile: (inflated.append(n), inflate(self, n, tile)))
    crop_of(content, "tif", Bucket(60.0, 1917, 32), 500, "exact")
    assert inflated == [3, 4]
    inflated.clear()
    crop_of(content, "tif", Bucket(60.0, 3834, 64), 1000, "window")
    assert inflated == [3, 4]
