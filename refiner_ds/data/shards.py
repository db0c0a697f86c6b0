"""Packed shards wherever they lie: their index, and the checked bytes of any picture by one positioned read."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import google_crc32c

from refiner_ds.data.images import PictureError
from refiner_ds.data.index import Index, Member, read_index
from refiner_ds.data.store.contract import Store
from refiner_ds.data.store.opening import open_store
from refiner_ds.errors import UserError

OPEN_SHARDS = 64
"""Shards that one process keeps open at most; systems often allow 1024 open files."""


class Shards:
    """The pictures of an index. One instance belongs to one process; it can be sent to workers."""

    def __init__(self, index: Index, store: Store) -> None:
        self.index, self._store = index, store
        self._files: dict[str, int] = {}

    def read(self, row: int, view: str) -> bytes:
        """The bytes of the picture of a view, as they were packed.

        Raises:
            UserError: they cannot be had, or are not what the index says; names sample, shard and cause.
        """
        member = self.index.member(row, view)
        with self.naming(row, view):
            content = os.pread(self._descriptor(member.shard), member.size, member.offset)
            _require(content, member)
        return content

    @contextmanager
    def naming(self, row: int, view: str) -> Iterator[None]:
        """What is wrong with a picture in this block is told with its sample and shard."""
        try:
            yield
        except (OSError, PictureError) as error:
            member, location = self.index.member(row, view), self._store.location
            raise UserError(
                f"sample {member.name} in {location}/{member.shard} cannot be used: {error}; "
                f"`refiner-ds verify {location}` lists all that is broken."
            ) from error

    def _descriptor(self, shard: str) -> int:
        """An open descriptor of a shard; `_files` holds the one used last at its end, and the first in it has to go."""
        if (descriptor := self._files.pop(shard, None)) is None:
            descriptor = os.open(Path(self._store.location) / shard, os.O_RDONLY)
        self._files[shard] = descriptor
        if len(self._files) > OPEN_SHARDS:
            os.close(self._files.pop(next(iter(self._files))))
        return descriptor

    def __getstate__(self) -> dict:
        return {**self.__dict__, "_files": {}}  # descriptors belong to one process


def open_shards(location: str) -> Shards:
    """The shards in a folder.

    Raises:
        UserError: there is no index, or not one of ours.
    """
    return Shards(read_index(Path(location)), open_store(location))


def _require(content: bytes, member: Member) -> None:
    if len(content) != member.size:
        raise PictureError(f"ends after {len(content)} of {member.size} bytes")
    if google_crc32c.value(content) != member.crc:
        raise PictureError("has other bytes than the index says (crc32c)")
