"""A look at one packed tar: each byte of it against the index, and each picture."""

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import google_crc32c
import numpy as np

from refiner_ds.data.buckets import Bucket, bucket_of, parse_buckets, size_in
from refiner_ds.data.codecs import decode
from refiner_ds.data.images import PictureError
from refiner_ds.data.index import KINDS, member_name, sha256_of
from refiner_ds.data.latents import LATENTS, Encoding
from refiner_ds.data.manifest import VIEWS
from refiner_ds.data.packing.listing import TarError, members_of
from refiner_ds.data.packing.tar import BLOCK, END, card_of, header_of, padding_of, place_members


@dataclass(frozen=True)
class Look:
    """A tar to look at, and all that the index says of it.

    Attributes:
        packed: whether `pack` or `encode` wrote it, so that each of its bytes is known.
        buckets: those to whose sizes its pictures were resized; none left them at their own.
        lines: what sources.jsonl says of its samples, where that is as it was written.
    """

    folder: Path
    name: str
    bytes: int
    sha256: str
    records: np.ndarray
    datasets: Sequence[str]
    packed: bool
    buckets: tuple[Bucket, ...]
    lines: list[str] | None
    encoding: Encoding | None = None


class Verified(NamedTuple):
    """What came of verifying one file: its name, its samples and bytes, and a sentence for each problem."""

    name: str
    samples: int
    bytes: int
    problems: list[str]


def look_at(look: Look) -> Verified:
    """Looks at a tar."""
    return Verified(look.name, len(look.records), look.bytes, problems_of(look))


def problems_of(look: Look) -> list[str]:
    """A sentence for each problem of a tar, none when it is sound; each names the tar, and the member where it can."""
    path = look.folder / look.name
    try:
        problems = list(_file_problems(path, look))
        descriptor = os.open(path, os.O_RDONLY)
    except OSError as error:
        return [f"{look.name} {'is missing' if not path.exists() else f'cannot be read ({error.strerror})'}"]
    try:
        problems += _packed_problems(descriptor, look) if look.packed else _foreign_problems(path, look)
        found = [list(_sample_problems(descriptor, look, number)) for number in range(len(look.records))]
    except OSError as error:
        found = [[f"cannot be read ({error.strerror})"]]
    finally:
        os.close(descriptor)
    if len(found) > 1 and all(found):
        found = [[f"none of its {len(found)} samples is whole; the first problem: {found[0][0]}"]]
    return [f"{look.name}: {text}" for text in [*problems, *(text for texts in found for text in texts)]]


def _file_problems(path: Path, look: Look) -> Iterator[str]:
    size = path.stat().st_size
    if size != look.bytes:
        yield f"has {size} bytes instead of {look.bytes}"
    elif sha256_of(path) != look.sha256:
        yield "has another sha256 than the index says"


def _picture_problems(descriptor: int, record: np.void, look: Look) -> Iterator[str]:
    shape = int(record["width"]), int(record["height"])
    expected = size_in(*shape, look.buckets)
    for place in range(len(VIEWS)):
        name, size = member_name(record, place), int(record["size"][place])
        content = os.pread(descriptor, size, int(record["offset"][place]))
        if len(content) < size:
            yield f"{name} ends after {len(content)} of {size} bytes"
            continue
        if google_crc32c.value(content) != record["crc"][place]:
            yield f"{name} has another crc32c than the index says"
        kind = KINDS[record["kind"][place]]
        if kind == LATENTS:
            yield from _latents_problems(name, size, shape, VIEWS[place], look.encoding)
            continue
        try:
            height, width, _ = decode(content, kind).shape
        except PictureError as error:
            yield f"{name} {error}"
            continue
        if (width, height) != expected:
            yield f"{name} is {width}x{height}, not {expected[0]}x{expected[1]}"


def _latents_problems(
    name: str, size: int, shape: tuple[int, int], view: str, encoding: Encoding | None
) -> Iterator[str]:
    if encoding is None:
        yield f"{name} holds latents, and the index does not say of what"
        return
    buckets = parse_buckets(encoding.buckets)
    expected = encoding.member_bytes(buckets[bucket_of(*shape, buckets)], view)
    if size != expected:
        yield f"{name} has {size} bytes, not {expected}"


def _packed_problems(descriptor: int, look: Look) -> Iterator[str]:
    """Whether the samples of a tar that `pack` wrote fill it, and its end is as it should be."""
    if look.lines is not None:
        places = look.records.copy()
        cards = [len(_card(look, number)) for number in range(len(places))]
        if place_members(places, cards) != look.bytes or not np.array_equal(places["offset"], look.records["offset"]):
            yield "its samples lie at other places than the index says"
    if os.pread(descriptor, len(END) + 1, look.bytes - len(END)) != END:
        yield "its end mark is damaged"


def _card(look: Look, number: int) -> bytes:
    assert look.lines is not None
    record = look.records[number]
    return card_of(record, look.lines[number], look.datasets[record["dataset"]])


def _sample_problems(descriptor: int, look: Look, number: int) -> Iterator[str]:
    """The pictures of a sample; where `pack` wrote it also its headers, padding and card, to the byte."""
    record = look.records[number]
    if look.packed:
        card = _card(look, number) if look.lines is not None else None
        for name, offset, size in _members(record, card):
            if os.pread(descriptor, BLOCK, offset - BLOCK) != header_of(name, size):
                yield f"the tar header of {name} is damaged"
            if os.pread(descriptor, -size % BLOCK, offset + size) != padding_of(size):
                yield f"what follows {name} is damaged"
        if card is not None and os.pread(descriptor, len(card), offset) != card:
            yield f"{name} is not what was packed"
    yield from _picture_problems(descriptor, record, look)


def _members(record: np.void, card: bytes | None) -> Iterator[tuple[str, int, int]]:
    """(name, offset, bytes) of a packed sample's members."""
    offset = size = 0
    for place in range(len(VIEWS)):
        offset, size = int(record["offset"][place]), int(record["size"][place])
        yield member_name(record, place), offset, size
    if card is not None:
        yield f"{record['key'].decode()}.json", offset + size + -size % BLOCK + BLOCK, len(card)


def _foreign_problems(path: Path, look: Look) -> Iterator[str]:
    """Whether the tar's own headers say what the index says."""
    try:
        places = {(place.offset, place.size) for place in members_of(path)}
    except TarError as error:
        yield str(error)
        return
    for record in look.records:
        for place in range(len(VIEWS)):
            if (int(record["offset"][place]), int(record["size"][place])) not in places:
                yield f"{member_name(record, place)} is not where the index says"
