"""Verifying: every shard is read back, hashed and decoded, and what is broken is named."""

import hashlib
import tarfile
from collections.abc import Iterator
from pathlib import Path

from refiner_ds.data.images import PictureError, decode
from refiner_ds.data.index import Entry, Shard, read_index


def verify(folder: Path) -> Iterator[tuple[Shard, list[str]]]:
    """Checks one shard after the other against the index; yields each with its problems, an empty list when sound.

    Raises:
        UserError: the folder holds no usable index.
    """
    for shard in read_index(folder).shards:
        yield shard, _problems(folder / shard.name, shard)


def _problems(path: Path, shard: Shard) -> list[str]:
    if not path.is_file():
        return [f"{shard.name} is missing"]
    content = path.read_bytes()
    if len(content) != shard.bytes:
        return [f"{shard.name} has {len(content)} bytes instead of {shard.bytes}"]
    problems = []
    if hashlib.sha256(content).hexdigest() != shard.sha256:
        problems.append(f"{shard.name} has another sha256 than the index says")
    problems += [text for entry in shard.samples for text in _sample_problems(content, shard.name, entry)]
    try:
        with tarfile.open(path) as tar:
            names = set(tar.getnames())
    except tarfile.TarError as error:
        return [*problems, f"{shard.name} is no readable tar ({error})"]
    expected = {member[0] for entry in shard.samples for member in entry.members.values()}
    if absent := expected - names:
        problems.append(f"{shard.name} lacks {len(absent)} members as a tar, the first {min(absent)}")
    return problems


def _sample_problems(content: bytes, shard: str, entry: Entry) -> Iterator[str]:
    for name, offset, size in entry.members.values():
        try:
            picture = decode(content[offset : offset + size])
        except PictureError as error:
            yield f"{shard}: {name} {error}"
            continue
        if picture.size != (entry.width, entry.height):
            yield f"{shard}: {name} is {picture.size[0]}x{picture.size[1]}, not {entry.width}x{entry.height}"
