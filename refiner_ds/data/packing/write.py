"""Writing one shard: picture bytes untouched, whole and synced to disk before it has its name."""

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path

import google_crc32c
import numpy as np

from refiner_ds.data.index import member_name
from refiner_ds.data.packing.tar import END, header_of, padding_of
from refiner_ds.errors import UserError
from refiner_ds.folders import file_made_whole


@dataclass(frozen=True)
class Job:
    """One shard to write: where, where to note its sha256, and by record the pictures in VIEWS' order and the card."""

    path: Path
    sum_path: Path
    records: np.ndarray
    files: list[tuple[Path, ...]]
    cards: list[bytes]


def write(job: Job) -> str:
    """Writes a shard and returns its sha256 (hex).

    Raises:
        UserError: a file is not what it was when it was checked, or the shard cannot be written.
    """
    partial = job.path.with_name(f"{job.path.name}.{os.getpid()}.partial")
    digest = hashlib.sha256()
    try:
        with partial.open("wb") as file:
            for record, files, card in zip(job.records, job.files, job.cards, strict=True):
                for piece in _pieces(record, files, card):
                    digest.update(piece)
                    file.write(piece)
            digest.update(END)
            file.write(END)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(job.path)
        sync_folder(job.path.parent)
        with file_made_whole(job.sum_path) as note:
            note.write_text(digest.hexdigest())
    except OSError as error:
        raise UserError(
            f"shard {job.path} cannot be written ({error.strerror}); make room or mend the folder and pack again, "
            "which goes on from here."
        ) from error
    finally:
        partial.unlink(missing_ok=True)
    return digest.hexdigest()


def _pieces(record: np.void, files: tuple[Path, ...], card: bytes) -> list[bytes]:
    """The sample as it lies in the tar."""
    pieces = []
    for place, path in enumerate(files):
        content = _content(path, int(record["size"][place]), int(record["crc"][place]))
        pieces += [header_of(member_name(record, place), len(content)), content, padding_of(len(content))]
    name = f"{record['key'].decode()}.json"
    return [*pieces, header_of(name, len(card)), card, padding_of(len(card))]


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


def sync_folder(folder: Path) -> None:
    """Makes the names in a folder last, whatever happens to the power."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
