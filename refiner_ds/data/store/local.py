"""Shards in a folder of this machine, read where they lie."""

import os
import shutil
from collections.abc import Iterable
from pathlib import Path

from refiner_ds.data.store.contract import NextUse, Stored
from refiner_ds.data.store.transfer import sha256_of
from refiner_ds.errors import UserError


class LocalStore:
    """A folder of shards; nothing is copied, and nothing has to be planned, held or released."""

    def __init__(self, location: str) -> None:
        self.location = location
        self._folder = Path(location)

    def read_small(self, name: str) -> bytes:
        path = self._folder / name
        try:
            return path.read_bytes()
        except OSError as error:
            raise _unreadable(path, error) from error

    def fetch(self, shard: Stored) -> Path:
        path = self._folder / shard.name
        try:
            size = path.stat().st_size
        except OSError as error:
            raise _unreadable(path, error) from error
        if size != shard.bytes:
            raise UserError(
                f"{path} has {size} bytes where the index says {shard.bytes}, so its samples cannot be found; "
                f"copy it there again, or pack again; `refiner-ds verify {self._folder}` lists all that is broken."
            )
        return path

    def release(self, shard: Stored) -> None:
        """Nothing: the file is no copy."""

    def read(self, name: str, offset: int, size: int) -> bytes:
        path = self._folder / name
        try:
            with path.open("rb", buffering=0) as file:
                content = os.pread(file.fileno(), size, offset)
        except OSError as error:
            raise _unreadable(path, error) from error
        if len(content) != size:
            raise UserError(
                f"{path} has only {len(content)} of the {size} bytes from {offset} on that the index says; "
                "copy it there again, or pack again."
            )
        return content

    def copy(self, shard: Stored, path: Path) -> None:
        try:
            shutil.copyfile(self._folder / shard.name, path)
        except OSError as error:
            raise _unreadable(self._folder / shard.name, error) from error

    def recheck(self, shard: Stored) -> bool:
        path = self._folder / shard.name
        try:
            with path.open("rb") as file:
                return path.stat().st_size == shard.bytes and sha256_of(file.fileno(), shard.bytes) == shard.sha256
        except OSError:
            return False

    def plan(self, shards: Iterable[Stored], next_use: NextUse) -> None:
        """Nothing: everything is here."""

    def prefetch(self, shards: Iterable[Stored]) -> None:
        """Nothing: everything is here."""

    def close(self) -> None:
        """Nothing: nothing is open."""


def _unreadable(path: Path, error: OSError) -> UserError:
    return UserError(f"{path} cannot be read ({error.strerror}); name a folder that `refiner-ds pack` wrote.")
