"""Writing one shard: pictures as they are recoded, whole and synced to disk before it has its name."""

import hashlib
import json
import os
import platform
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import NamedTuple

import google_crc32c
import numpy as np

from refiner_ds.data.images import PictureError
from refiner_ds.data.index import KINDS, member_name
from refiner_ds.data.packing.recode import Recoding, recode
from refiner_ds.data.packing.tar import END, header_of, padding_of, place_members
from refiner_ds.errors import UserError
from refiner_ds.folders import file_made_whole, sync

MADE = ("size", "crc", "kind")
"""Fields of a record that are known once its pictures are encoded; the offsets follow from them."""


@dataclass(frozen=True)
class Job:
    """One shard to write: where, where to note what was written, and of each record the picture files and the card.

    Attributes:
        records: (samples,) of `record_type`; size, crc and kind are those of the picture files.
        files: by record the pictures in VIEWS' order.
    """

    path: Path
    note_path: Path
    records: np.ndarray
    files: list[tuple[Path, ...]]
    cards: list[bytes]
    recoding: Recoding


class Written(NamedTuple):
    """A shard that is there: its sha256 (hex), its bytes, and the records of what it holds."""

    sha256: str
    bytes: int
    records: np.ndarray


def written_before(job: Job) -> Written | None:
    """The shard, if an earlier run completed it."""
    return read_note(job.path, job.note_path, job.records, [len(card) for card in job.cards])


def write(job: Job) -> Written:
    """Writes a shard.

    Raises:
        UserError: a file is not what it was when it was checked, cannot be recoded, or the shard cannot be written.
    """
    records = job.records.copy()
    samples = zip(records, job.files, job.cards, strict=True)
    pieces = (piece for record, files, card in samples for piece in _pieces(record, files, card, job.recoding))
    return write_whole(job.path, job.note_path, records, [len(card) for card in job.cards], pieces, "pack")


def read_note(path: Path, note_path: Path, records: np.ndarray, card_sizes: Sequence[int]) -> Written | None:
    """The shard that `write_whole` has completed there, if it has; it was synced before its note was written.

    Args:
        records: of the shard, as they were before it was written; they stay so.
    """
    records = records.copy()
    try:
        note = json.loads(note_path.read_text(encoding="utf-8"))
        for field in MADE:
            records[field] = note[field]
        written = Written(note["sha256"], place_members(records, card_sizes), records)
        return written if path.stat().st_size == written.bytes else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def write_whole(
    path: Path, note_path: Path, records: np.ndarray, card_sizes: Sequence[int], pieces: Iterable[bytes], verb: str
) -> Written:
    """Writes a tar, which has its name once it is whole and synced, and then a note of what it holds.

    Args:
        records: of its samples, in which size, crc and kind are set while `pieces` are made.
        pieces: the bytes of the samples; the end is added.
        verb: what the person is to do again.

    Raises:
        UserError: it cannot be written.
    """
    partial = path.with_name(f"{path.name}.{platform.node()}-{os.getpid()}.partial")
    digest = hashlib.sha256()
    try:
        with partial.open("wb") as file:
            for piece in chain(pieces, [END]):
                digest.update(piece)
                file.write(piece)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
        sync(path.parent)
        with file_made_whole(note_path) as scratch:
            note = {"sha256": digest.hexdigest(), **{field: records[field].tolist() for field in MADE}}
            scratch.write_text(json.dumps(note), encoding="utf-8")
    except OSError as error:
        raise UserError(
            f"shard {path} cannot be written ({error.strerror}); make room or mend the folder and {verb} again, "
            "which goes on from here."
        ) from error
    finally:
        partial.unlink(missing_ok=True)
    return Written(digest.hexdigest(), place_members(records, card_sizes), records)


def put(record: np.void, place: int, content: bytes, kind: str) -> list[bytes]:
    """A picture as it lies in the tar; its record then tells of it."""
    made = (len(content), google_crc32c.value(content), KINDS.index(kind))
    for field, value in zip(MADE, made, strict=True):
        record[field][place] = value
    return [header_of(member_name(record, place), len(content)), content, padding_of(len(content))]


def put_card(record: np.void, card: bytes) -> list[bytes]:
    """The card as it lies in the tar."""
    return [header_of(f"{record['key'].decode()}.json", len(card)), card, padding_of(len(card))]


def _pieces(record: np.void, files: tuple[Path, ...], card: bytes, recoding: Recoding) -> list[bytes]:
    """The sample as it lies in the tar; its record then tells what is there instead of what the files hold."""
    pieces = []
    for place, path in enumerate(files):
        content = _content(path, int(record["size"][place]), int(record["crc"][place]))
        content, kind = _recoded(path, content, KINDS[record["kind"][place]], recoding)
        pieces += put(record, place, content, kind)
    return [*pieces, *put_card(record, card)]


def _recoded(path: Path, content: bytes, kind: str, recoding: Recoding) -> tuple[bytes, str]:
    try:
        return recode(content, kind, recoding)
    except PictureError as error:
        raise UserError(
            f"picture {path} cannot be packed with --recode {recoding.codec}: it {error}; "
            "pack with another --recode, or with keep, which leaves its bytes."
        ) from error


def _content(path: Path, size: int, crc: int) -> bytes:
    try:
        content = path.read_bytes()
    except OSError as error:
        raise UserError(
            f"picture {path} could be read when it was checked and now cannot ({error.strerror}), so its shard would "
            "lack a sample; mend it and pack again, which goes on from here."
        ) from error
    if len(content) != size or google_crc32c.value(content) != crc:
        raise UserError(
            f"picture {path} has changed since it was checked, so nobody has looked at what would be packed; "
            "let nothing write to it and pack again, which goes on from here."
        )
    return content
