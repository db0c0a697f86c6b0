"""The files of a cache folder, and the locks (flock) by which processes tell each other that they use them."""

import errno
import fcntl
import os
import time
from dataclasses import dataclass
from pathlib import Path

SHARD, PART, OLD = ".shard", ".part", ".old"
PLAN, INDEX, PLACING = ".plan", ".index", ".placing"
"""What is no shard: the next uses that a run expects, a folder with the index of shards, and a file being written."""


@dataclass(frozen=True)
class Held:
    """A whole shard in the cache, which stays until it is released."""

    path: Path
    descriptor: int

    def release(self) -> None:
        """Lets it go; it may be evicted from now on."""
        os.close(self.descriptor)

    def is_in_place(self, size: int) -> bool:
        """Whether the file is still there under its name, and has its size."""
        return is_at(self.path, self.descriptor) and os.fstat(self.descriptor).st_size == size


@dataclass(frozen=True)
class Part:
    """Space that is reserved for a shard, and the open file to write it into; to be finished or abandoned."""

    path: Path
    descriptor: int


def is_at(path: Path, descriptor: int) -> bool:
    """Whether an open file is the one that lies at this path."""
    try:
        return os.path.samestat(os.stat(path), os.fstat(descriptor))
    except FileNotFoundError:
        return False


def wait_for_lock(path: Path) -> int:
    """A descriptor that holds the lock of a file, which is made where it is not there, as is its folder."""
    while True:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        if is_at(path, descriptor):
            return descriptor
        os.close(descriptor)  # somebody deleted the folder: others may lock a new file


def lock_shared(path: Path) -> int | None:
    """A descriptor that keeps a file from being evicted; None where it is not there."""
    return _lock(path, fcntl.LOCK_SH)


def lock_alone(path: Path) -> int | None:
    """A descriptor of a file that nobody else uses; None where it is not there, or in use."""
    return _lock(path, fcntl.LOCK_EX)


def share(descriptor: int) -> None:
    """Lets others lock it shared, too."""
    fcntl.flock(descriptor, fcntl.LOCK_SH)


def _lock(path: Path, kind: int) -> int | None:
    try:
        descriptor = os.open(path, os.O_RDWR)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return None
    return descriptor


def is_in_use(path: Path) -> bool:
    """Whether the file is there and a living process holds it."""
    descriptor = lock_alone(path)
    if descriptor is None:
        return path.exists()
    os.close(descriptor)
    return False


def reserve(path: Path, size: int) -> Part | None:
    """A new file of this size, its blocks taken; None where the disk has none left after all."""
    path.unlink(missing_ok=True)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o666)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    try:
        os.truncate(descriptor, size)
        if size:
            os.posix_fallocate(descriptor, 0, size)
    except OSError as error:
        if error.errno in (errno.EOPNOTSUPP, errno.EINVAL):
            return Part(path, descriptor)  # a file system that cannot promise blocks
        path.unlink()
        os.close(descriptor)
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            return None
        raise
    return Part(path, descriptor)


def set_aside(path: Path) -> None:
    """Out of the way of its successor, to be cleared away once nobody holds it any more."""
    path.rename(path.with_name(f"{path.stem}-{path.stat().st_ino}{OLD}"))


def touch(path: Path) -> None:
    """Marks a shard as used now."""
    now = time.time_ns()
    os.utime(path, ns=(now, now))
