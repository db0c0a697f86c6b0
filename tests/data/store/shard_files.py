"""Shards of random bytes, and what the tests of stores share."""

import hashlib
import random
from pathlib import Path

from refiner_ds.data.store.contract import StoredFile
from refiner_ds.data.store.retry import Retry

QUICK = Retry(first_wait=0.01, longest_wait=0.05, deadline=20)
"""Waits that a test can afford."""
BLOCK = 4096
"""Disks give space in blocks of this many bytes; shards of whole blocks take what their size says."""


def make_files(count: int, size: int, seed: int = 0) -> dict[str, bytes]:
    """Contents by name, each of another content."""
    chance = random.Random(seed)
    return {f"train-{number:06d}.tar": chance.randbytes(size) for number in range(count)}


def shards_of(files: dict[str, bytes]) -> list[StoredFile]:
    """What an index would say of them."""
    return [StoredFile(name, len(content), hashlib.sha256(content).hexdigest()) for name, content in files.items()]


def kinds_in(folder: Path) -> dict[str, int]:
    """How many files of each suffix a cache folder holds, its lock left out."""
    suffixes = [path.suffix for path in folder.iterdir() if path.name != "lock"]
    return {suffix: suffixes.count(suffix) for suffix in set(suffixes)}


def inodes_in(folder: Path) -> dict[int, int]:
    """Bytes on disk by inode of the files in a folder."""
    found = {}
    for path in folder.iterdir():
        try:
            status = path.stat()
        except FileNotFoundError:
            continue
        found[status.st_ino] = max(status.st_size, status.st_blocks * 512)
    return found


def bytes_in(folder: Path) -> int:
    """Bytes that a folder took at a moment between two looks, at least: of the files that both looks saw."""
    before, after = inodes_in(folder), inodes_in(folder)
    return sum(min(size, after[inode]) for inode, size in before.items() if inode in after)
