"""The index of packed shards: which sample lies where. Enough to read any sample with one positioned read a picture."""

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from refiner_ds.data.latents import LATENTS, Encoding
from refiner_ds.data.manifest import VIEWS
from refiner_ds.errors import UserError
from refiner_ds.folders import file_made_whole

FILE_NAME, RECORDS_NAME, SOURCES_NAME = "index.json", "samples.npy", "sources.jsonl"
FILES = (FILE_NAME, RECORDS_NAME, SOURCES_NAME)
VERSION = 2
KINDS = ("png", "jpg", "webp", "tif", "npy", LATENTS)
"""Extensions of members, numbered in the records: new ones go to the end."""
SPLITS = ("train", "val")


def record_type(key_bytes: int) -> np.dtype:
    """The type of a record, one a sample; offsets, sizes and crc32c are those of the three views in their order."""
    fields: list[Any] = [("key", f"S{key_bytes}"), ("shard", "<u4"), ("width", "<u4"), ("height", "<u4")]
    fields += [("dataset", "<u2"), ("offset", "<u8", (3,)), ("size", "<u4", (3,)), ("crc", "<u4", (3,))]
    return np.dtype([*fields, ("kind", "u1", (3,))])


@dataclass(frozen=True)
class Shard:
    """Samples of one split in one tar: file name, bytes and sha256 (hex) of the file, number of these samples."""

    name: str
    split: str
    bytes: int
    sha256: str
    samples: int


@dataclass(frozen=True)
class Dataset:
    """Where samples come from: a name, a weight relative to the other ones, the manifest, the number of samples."""

    name: str
    weight: float
    manifest: str
    samples: int


@dataclass(frozen=True)
class Skipped:
    """A sample that was left out, by the name of its dataset, its key and its render, and why."""

    dataset: str
    key: str
    source: str
    reason: str


class Member(NamedTuple):
    """Where the picture of a view lies: shard, name in the tar, byte offset, byte count and crc32c."""

    shard: str
    name: str
    offset: int
    size: int
    crc: int

    @property
    def kind(self) -> str:
        """Extension of the member, one of KINDS."""
        return self.name.rpartition(".")[2]


@dataclass(frozen=True, eq=False)
class Index:
    """All samples of packed shards.

    Attributes:
        records: (samples,) of `record_type`, mapped from disk; those of a shard are adjacent, in the order of `shards`.
            Width and height are those of the picture files.
        codec: how pictures are stored: "keep" is as their files were, others are "tiff", "npy" and such as "jpeg:95".
        buckets: those to whose sizes pictures were resized, as --buckets spells them; None left them at their own.
        made_by: "pack", "encode", or "index" for tars that something else wrote.
        encoding: how the training samples were encoded; None where they are pictures.
    """

    folder: Path
    shards: tuple[Shard, ...]
    records: np.ndarray
    datasets: tuple[Dataset, ...]
    skipped: tuple[Skipped, ...]
    codec: str
    buckets: str | None
    made_by: str
    records_sha256: str
    sources_sha256: str
    encoding: Encoding | None = None

    def __len__(self) -> int:
        return len(self.records)

    @property
    def digest(self) -> str:
        """16 hex digits that name the content, whatever folder it lies in and wherever it was packed from."""
        lines = [f"{shard.split} {shard.name} {shard.sha256}" for shard in self.shards]
        lines += [f"{dataset.name} {dataset.weight}" for dataset in self.datasets]
        return hashlib.sha256("\n".join([*lines, self.records_sha256]).encode()).hexdigest()[:16]

    def rows(self, split: str) -> np.ndarray:
        """(samples of the split,) int64: the numbers of its records, in the order of the shards."""
        belongs = np.array([shard.split == split for shard in self.shards], bool)
        return np.flatnonzero(np.repeat(belongs, [shard.samples for shard in self.shards]))

    def key(self, row: int) -> str:
        """Key of a sample: its number in the manifest, or what a foreign tar calls it."""
        return self.records["key"][row].decode()

    def member(self, row: int, view: str) -> Member:
        """Where the picture of a view lies."""
        record, place = self.records[row], VIEWS.index(view)
        name = member_name(record, place)
        numbers = (int(record[field][place]) for field in ("offset", "size", "crc"))
        return Member(self.shards[record["shard"]].name, name, *numbers)

    def __getstate__(self) -> dict:
        return {**self.__dict__, "records": None}  # another process maps the file instead of getting a copy

    def __setstate__(self, state: dict) -> None:
        self.__dict__.update(state, records=_mapped(state["folder"]))


def member_name(record: np.void, place: int) -> str:
    """Name in its tar of a record's picture of the view VIEWS[place]."""
    return f"{record['key'].decode()}.{VIEWS[place]}.{KINDS[record['kind'][place]]}"


def write_index(
    folder: Path,
    shards: Sequence[Shard],
    records: np.ndarray,
    sources: Iterable[str],
    datasets: Sequence[Dataset],
    skipped: Sequence[Skipped] = (),
    made_by: str = "pack",
    codec: str = "keep",
    buckets: str | None = None,
    encoding: Encoding | None = None,
) -> Index:
    """Writes samples.npy, sources.jsonl and, last, index.json, which makes the folder a data set.

    Args:
        sources: a line of JSON for each record.
    """
    with file_made_whole(folder / RECORDS_NAME) as path, path.open("wb") as array:
        np.save(array, records)
    with file_made_whole(folder / SOURCES_NAME) as path, path.open("w", encoding="utf-8") as file:
        file.writelines(f"{line}\n" for line in sources)
    sums = sha256_of(folder / RECORDS_NAME), sha256_of(folder / SOURCES_NAME)
    parts = (*shards,), _mapped(folder), (*datasets,), (*skipped,)
    index = Index(folder, *parts, codec, buckets, made_by, *sums, encoding)
    with file_made_whole(folder / FILE_NAME) as path:
        path.write_text(json.dumps(_content(index), indent=1) + "\n", encoding="utf-8")
    return index


def _content(index: Index) -> dict[str, Any]:
    """What index.json says; `sum` covers all the rest of it."""
    parts = {name: [asdict(part) for part in getattr(index, name)] for name in ("datasets", "shards", "skipped")}
    names = ("codec", "buckets", "made_by", "records_sha256", "sources_sha256")
    rest = {name: getattr(index, name) for name in names}
    if index.encoding:
        rest["encoding"] = asdict(index.encoding)
    content = {"version": VERSION, "digest": index.digest, "views": list(VIEWS), **rest, **parts}
    return {**content, "sum": _sum(content)}


def _sum(content: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def read_index(folder: Path, location: str | None = None) -> Index:
    """Reads the index of packed shards; the records are mapped, not loaded.

    Args:
        location: where the shards lie, for errors, if the folder holds a copy of their index only.

    Raises:
        UserError: the folder holds no index, or one of another version, or one that is not as it was written.
    """
    where = location or str(folder)
    path = f"{where}/{FILE_NAME}"
    content = content_of(_read(folder, where), path)
    try:
        shards = tuple(Shard(**part) for part in content["shards"])
        datasets = tuple(Dataset(**part) for part in content["datasets"])
        skipped = tuple(Skipped(**part) for part in content["skipped"])
        rest = {name: content[name] for name in ("codec", "buckets", "made_by", "records_sha256", "sources_sha256")}
        encoding = Encoding(**content["encoding"]) if "encoding" in content else None
        _require_records(folder, where, rest["records_sha256"], shards)
        if tuple(content["views"]) != VIEWS:
            raise UserError(f"{path} has the views {content['views']} and this program reads {VIEWS}; pack again.")
    except (KeyError, TypeError) as error:
        raise UserError(f"{path} lacks what pack writes into it, so samples cannot be found; pack again.") from error
    return Index(folder, shards, _mapped(folder), datasets, skipped, **rest, encoding=encoding)


def content_of(text: bytes, path: str) -> dict[str, Any]:
    """What an index.json says, checked by its own sum.

    Raises:
        UserError: it is not what `write_index` wrote.
    """
    try:
        content = json.loads(text)
    except ValueError as error:
        raise UserError(f"{path} is not JSON ({error}), so the shards cannot be read; pack them again.") from error
    version = content.get("version") if isinstance(content, dict) else None
    if version != VERSION:
        raise UserError(f"{path} has version {version} and this program reads {VERSION}; pack again.")
    if content.pop("sum", None) != _sum(content):
        raise UserError(f"{path} is not what pack wrote (its sum differs): it was edited or damaged; pack again.")
    return content


def _read(folder: Path, where: str) -> bytes:
    try:
        return (folder / FILE_NAME).read_bytes()
    except OSError as error:
        raise UserError(
            f"shards {where} has no readable {FILE_NAME} ({error.strerror}), so nothing says what is in it; "
            "name a folder that `refiner-ds pack` wrote."
        ) from error


def _require_records(folder: Path, where: str, sha256: str, shards: Sequence[Shard]) -> None:
    path = f"{where}/{RECORDS_NAME}"
    try:
        found = sha256_of(folder / RECORDS_NAME)
    except OSError as error:
        raise UserError(
            f"shards {where} has no readable {RECORDS_NAME} ({error.strerror}), so samples cannot be found; copy the "
            "whole folder, or pack again."
        ) from error
    if found != sha256:
        raise UserError(
            f"{path} has another sha256 than {FILE_NAME} says: it was edited or damaged; copy it anew, or pack again."
        )
    shard = _mapped(folder)["shard"]
    if not np.array_equal(shard, np.repeat(np.arange(len(shards)), [part.samples for part in shards])):
        raise UserError(f"{path} does not hold the samples that {FILE_NAME} counts; pack again.")


def _mapped(folder: Path) -> np.ndarray:
    return np.load(folder / RECORDS_NAME, mmap_mode="r")


def sha256_of(path: Path) -> str:
    """sha256 of a file in hex, read in pieces."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 22):
            digest.update(block)
    return digest.hexdigest()
