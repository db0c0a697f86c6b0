"""What a store of shards is to its readers: something remote behind the cache of the node."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from refiner_ds.errors import UserError

NextUse = Callable[[str], float]
"""By a shard's name: when this node reads it next, on any scale that grows with time; math.inf for never again."""

Progress = Callable[[str, int, int], None]
"""Told (what, bytes done, bytes in all), from any thread."""


class Stored(Protocol):
    """A file as an index describes it: its name in the store, its bytes, and its sha256 in hex digits."""

    @property
    def name(self) -> str: ...
    @property
    def bytes(self) -> int: ...
    @property
    def sha256(self) -> str: ...


@dataclass(frozen=True)
class StoredFile:
    """A file that is no shard of an index, such as its table of samples."""

    name: str
    bytes: int
    sha256: str


class Damaged(UserError):
    """A file came each time with other bytes than the index says: it is so where it lies."""


class Store(Protocol):
    """Where shards lie. One instance belongs to one process, whose threads may share it; it can be sent to workers."""

    location: str

    def read_small(self, name: str) -> bytes:
        """A whole file that nothing is known of, such as index.json.

        Raises:
            UserError: it cannot be had.
        """

    def fetch(self, shard: Stored) -> Path | None:
        """A path of the whole shard, which stays until `release`; None where it has to be read by ranges instead.

        Waits for a download, also for one by another process of the node. Each fetch needs its release, before which a
        mapping of the file has to be closed: the space of what is still mapped could not be used again.

        Raises:
            Damaged: it is not what the index says; told at once when it is asked for again.
            UserError: it cannot be had.
        """

    def release(self, shard: Stored) -> None:
        """Takes back one `fetch` that gave a path; those of a store that was sent to a worker stay with the sender."""

    def read(self, name: str, offset: int, size: int) -> bytes:
        """Exactly `size` bytes from `offset` on, past the cache.

        Raises:
            UserError: they cannot be had.
        """

    def copy(self, shard: Stored, path: Path) -> None:
        """Writes a file as it is now, past the cache and unchecked: for those who want to see what is wrong with it.

        Raises:
            UserError: it cannot be had.
        """

    def recheck(self, shard: Stored) -> bool:
        """Hashes the whole shard again: what to call when something in it is broken.

        Returns:
            True where it is what the index says, so that fetching it again would mend nothing. False where it is not:
            a cached copy is then thrown away, and the next `fetch` downloads it again.
        """

    def plan(self, shards: Iterable[Stored], next_use: NextUse) -> None:
        """Tells what will be read when, for eviction and prefetching; `next_use` is asked each time room is needed."""

    def prefetch(self, shards: Iterable[Stored]) -> None:
        """Downloads shards in the background, in this order, in place of what an earlier call still had to begin.

        It makes room only by evicting what the plan uses later than the newcomer, and otherwise waits. A download that
        fails is left to `fetch`, which says why.
        """

    def call_off(self) -> None:
        """Lets prefetching end without waiting for it: after a failure."""

    def close(self) -> None:
        """Ends prefetching and releases everything."""
