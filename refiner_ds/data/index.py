"""The index of packed shards: which sample lies where. Enough to read any sample with one positioned read a picture."""

import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path

from refiner_ds.data.manifest import VIEWS
from refiner_ds.errors import UserError

FILE_NAME = "index.json"
VERSION = 1


@dataclass(frozen=True)
class Entry:
    """One sample: key, size of its pictures in pixels, and by view its member's name, byte offset and byte count."""

    key: str
    width: int
    height: int
    members: dict[str, tuple[str, int, int]]
    sources: dict[str, str]


@dataclass(frozen=True)
class Shard:
    """One tar of a split: file name, bytes, sha256 (hex) and its samples in order."""

    name: str
    split: str
    bytes: int
    sha256: str
    samples: tuple[Entry, ...]


@dataclass(frozen=True)
class Index:
    """All shards of a data set; `digest` names its content, whatever folder it lies in."""

    shards: tuple[Shard, ...]

    @property
    def digest(self) -> str:
        """16 hex digits over the names and digests of all shards."""
        text = "\n".join(f"{shard.split} {shard.name} {shard.sha256}" for shard in self.shards)
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def samples(self, split: str) -> list[tuple[str, Entry]]:
        """(shard name, entry) of every sample of a split, in the manifest's order."""
        return [(shard.name, entry) for shard in self.shards if shard.split == split for entry in shard.samples]


def write_index(index: Index, folder: Path) -> None:
    """Writes index.json, which makes the folder a data set."""
    content = {"version": VERSION, "digest": index.digest, "shards": [asdict(shard) for shard in index.shards]}
    (folder / FILE_NAME).write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def read_index(folder: Path) -> Index:
    """Reads the index of packed shards.

    Raises:
        UserError: the folder holds no index, or one of another form or version or with a wrong digest.
    """
    path = folder / FILE_NAME
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(
            f"shards {folder} has no readable {FILE_NAME} ({error.strerror}), so nothing says what is in it; "
            "name a folder that `refiner-ds pack` wrote."
        ) from error
    except ValueError as error:
        raise UserError(f"{path} is not JSON ({error}), so the shards cannot be read; pack them again.") from error
    version = content.get("version") if isinstance(content, dict) else None
    if version != VERSION:
        raise UserError(f"{path} has version {version} and this program reads {VERSION}; pack again.")
    try:
        digest, index = content["digest"], Index(tuple(_shard(shard) for shard in content["shards"]))
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise UserError(f"{path} lacks what pack writes into it, so samples cannot be found; pack again.") from error
    if index.digest != digest:
        raise UserError(f"{path} says digest {digest} but holds {index.digest}: it was edited; pack again.")
    return index


def _shard(content: dict) -> Shard:
    entries = tuple(_entry(entry) for entry in content["samples"])
    return Shard(content["name"], content["split"], int(content["bytes"]), content["sha256"], entries)


def _entry(content: dict) -> Entry:
    places = {view: content["members"][view] for view in VIEWS}
    members = {view: (str(name), int(offset), int(size)) for view, (name, offset, size) in places.items()}
    return Entry(content["key"], int(content["width"]), int(content["height"]), members, dict(content["sources"]))
