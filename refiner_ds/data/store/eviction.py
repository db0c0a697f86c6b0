"""Which cached shard goes first: pure."""

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class Entry:
    """A cached shard: its sha256, its bytes, when it was used last (ns since 1970), and when it is used next.

    `next_use` is math.inf where nobody knows.
    """

    sha256: str
    bytes: int
    last_use: int
    next_use: float


def eviction_order(entries: Iterable[Entry]) -> list[Entry]:
    """Farthest next use first (Belady 1966, which no other rule beats); among equals, least recently used first."""
    return sorted(entries, key=lambda entry: (-entry.next_use, entry.last_use, entry.sha256))
