"""The node's cache of shards: a folder whose files are all its state, so that a kill at any moment leaves it right.

SHA256.shard is a whole shard, SHA256.part one that is being downloaded and has its full size from the start, and
SHA256-N.old one thrown away while in use: their sizes are the ledger. Who uses a file holds its flock, which the kernel
takes back from the dead; every change of the folder is made under the flock of the file `lock`. Beside the shards lie
the small files that reading them takes, which count as well: NAME.plan while a run uses it, and SHA256.index for good.
"""

import contextlib
import math
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from refiner_ds.data.store.contract import Stored
from refiner_ds.data.store.eviction import Entry, eviction_order
from refiner_ds.data.store.files import (
    INDEX,
    OLD,
    PART,
    PLACING,
    PLAN,
    SHARD,
    Held,
    Part,
    is_at,
    is_in_use,
    lock_alone,
    lock_shared,
    reserve,
    set_aside,
    share,
    touch,
    wait_for_lock,
)
from refiner_ds.errors import UserError
from refiner_ds.folders import require_folder

NextUseOfDigest = Callable[[str], float]
"""By a shard's sha256: when it is used next; math.inf where nobody knows."""


def unknown(sha256: str) -> float:
    """For where nobody knows when any shard is used."""
    return math.inf


@dataclass(frozen=True)
class CacheOptions:
    """A folder on a disk of the node, and how many bytes the cache may take there, at any time, for all processes."""

    folder: Path
    limit_bytes: int


class Answer(Enum):
    """Why there is nothing to hold and nothing to download."""

    THERE = "it is there, and nobody wanted to hold it"
    BUSY = "another thread or process is downloading it"
    FULL = "there is no room, and what could be evicted is in use or needed sooner"


class Cache:
    """A cache folder. Instances in any number of processes share it.

    Raises:
        UserError: the folder cannot be made or written.
    """

    def __init__(self, options: CacheOptions) -> None:
        if options.limit_bytes < 1:
            raise UserError(
                f"the cache limit is {options.limit_bytes} bytes, which holds nothing; give at least a shard's size."
            )
        require_folder(options.folder)
        self.folder, self.limit_bytes = options.folder, options.limit_bytes
        with self._locked():
            self._make_room(0, unknown, -math.inf)  # the limit may have been higher before

    def request(self, shard: Stored, next_use: NextUseOfDigest, ahead: bool = False) -> Held | Part | Answer:
        """Holds a cached shard, or reserves the space to download it.

        Args:
            ahead: nobody needs it yet, so that what is needed sooner is not evicted for it, nor is it held.
        """
        part = self._path(shard.sha256, PART)
        with self._locked():
            if held := self._hold(shard):
                if not ahead:
                    touch(held.path)
                    return held
                held.release()
                return Answer.THERE
            if is_in_use(part):
                return Answer.BUSY
            needed_later_than = next_use(shard.sha256) if ahead else -math.inf
            if not self._make_room(shard.bytes, next_use, needed_later_than):
                return Answer.FULL
            return reserve(part, shard.bytes) or Answer.FULL

    def hold(self, shard: Stored) -> Held | None:
        """Holds a shard if it is cached."""
        with self._locked():
            return self._hold(shard)

    def finish(self, part: Part) -> Held | None:
        """Gives a complete part its final name and holds it; None where somebody deleted it meanwhile."""
        os.fsync(part.descriptor)  # else a power cut could leave a file of the right size full of zeros
        final = part.path.with_suffix(SHARD)
        with self._locked():
            if not is_at(part.path, part.descriptor):
                os.close(part.descriptor)
                return None
            part.path.rename(final)
            touch(final)
            share(part.descriptor)
            return Held(final, part.descriptor)

    def place(self, name: str, content: bytes, next_use: NextUseOfDigest = unknown) -> Held:
        """Puts a small file into the folder, or one below it, in place of an older one of this name, and holds it.

        Raises:
            UserError: there is no room, or the disk cannot be written.
        """
        path = self.folder / name
        scratch = path.with_name(f"{path.name}{PLACING}")
        with self._locked():
            if not self._make_room(len(content), next_use, -math.inf):
                raise UserError(
                    f"cache {self.folder} has no room for the {len(content)} bytes of {name}, as its limit is "
                    f"{self.limit_bytes} bytes and what else it holds is in use; give it more room."
                )
            try:
                path.parent.mkdir(exist_ok=True)
                with scratch.open("wb") as file:
                    file.write(content)
                    os.fsync(file.fileno())
                scratch.rename(path)
            except OSError as error:
                raise UserError(
                    f"cache folder {self.folder} cannot take {name} ({error.strerror}); name one on a sound disk."
                ) from error
            descriptor = lock_shared(path)
            assert descriptor is not None, "nobody else changes the folder meanwhile"
            return Held(path, descriptor)

    def shards(self) -> set[str]:
        """The sha256 of every shard that is in it now."""
        return {path.stem for path in self.folder.glob(f"*{SHARD}")}

    def abandon(self, part: Part) -> None:
        """Frees the space of a part that will not be finished."""
        with self._locked():
            if is_at(part.path, part.descriptor):
                part.path.unlink()
            os.close(part.descriptor)

    def discard(self, held: Held) -> None:
        """Takes a damaged shard out of the cache; its space counts until the last process has released it."""
        with self._locked():
            if is_at(held.path, held.descriptor):
                set_aside(held.path)

    def _path(self, sha256: str, suffix: str) -> Path:
        return self.folder / f"{sha256}{suffix}"

    def _hold(self, shard: Stored) -> Held | None:
        path = self._path(shard.sha256, SHARD)
        descriptor = lock_shared(path)
        if descriptor is None:
            return None
        if os.fstat(descriptor).st_size == shard.bytes:
            return Held(path, descriptor)
        os.close(descriptor)
        set_aside(path)
        return None

    def _make_room(self, size: int, next_use: NextUseOfDigest, needed_later_than: float) -> bool:
        """Evicts until `size` more bytes fit; nothing where even that would not do."""
        entries, used = self._survey(next_use)
        disk = os.statvfs(self.folder)
        limit = min(self.limit_bytes, used + disk.f_bavail * disk.f_frsize)  # the disk has other users
        surplus, victims = used + size - limit, []
        for entry in eviction_order(entries) if size <= limit else ():
            if surplus <= 0 or entry.next_use <= needed_later_than:
                break
            path = self._path(entry.sha256, SHARD)
            if (descriptor := lock_alone(path)) is not None:
                victims.append((path, descriptor))
                surplus -= entry.bytes
        for path, descriptor in victims:
            if surplus <= 0:
                path.unlink(missing_ok=True)
            os.close(descriptor)
        return surplus <= 0

    def _survey(self, next_use: NextUseOfDigest) -> tuple[list[Entry], int]:
        """All whole shards, and the bytes of everything; clears away what nobody holds and nobody will finish."""
        entries, used = [], 0
        for path in self.folder.iterdir():
            if path.suffix in (PART, OLD, PLAN, PLACING) and not is_in_use(path):
                path.unlink(missing_ok=True)
            elif path.suffix == INDEX:
                with contextlib.suppress(FileNotFoundError):
                    used += sum(file.stat().st_size for file in path.iterdir())
            elif path.suffix in (SHARD, PART, OLD, PLAN):
                with contextlib.suppress(FileNotFoundError):  # a person may delete files at any time
                    status = path.stat()
                    used += status.st_size
                    if path.suffix == SHARD:
                        entries.append(Entry(path.stem, status.st_size, status.st_mtime_ns, next_use(path.stem)))
        return entries, used

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        """Alone among all threads and processes that use this folder."""
        try:
            descriptor = wait_for_lock(self.folder / "lock")
        except OSError as error:
            raise UserError(
                f"cache folder {self.folder} cannot be used ({error.strerror}); name one that can be written."
            ) from error
        try:
            yield
        finally:
            os.close(descriptor)
