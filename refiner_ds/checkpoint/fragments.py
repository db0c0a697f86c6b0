"""How ZeRO cuts parameters: pure arithmetic on runs of values, so that any cut can be read from any other."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Fragment:
    """A run of `count` values of the flattened parameter `name`, from its value `start` on."""

    name: str
    start: int
    count: int


@dataclass(frozen=True)
class Placed:
    """A fragment that lies in a flat shard from the shard's value `offset` on."""

    fragment: Fragment
    offset: int


Cut = Sequence[Sequence[Placed]]
"""What one rank's flat shards hold, one for each group of parameters."""


def common(one: Fragment, other: Fragment) -> Fragment | None:
    """The values that two fragments share; None where they share none."""
    start = max(one.start, other.start)
    end = min(one.start + one.count, other.start + other.count)
    return Fragment(one.name, start, end - start) if one.name == other.name and start < end else None


def covering(wanted: Fragment, pieces: Iterable[Fragment]) -> Iterator[tuple[int, Fragment]]:
    """(number of the piece, what to take of it) for every value of `wanted` once, from pieces that may overlap.

    Raises:
        LookupError: pieces do not hold all of it.
    """
    start, end = wanted.start, wanted.start + wanted.count
    for number, piece in sorted(enumerate(pieces), key=lambda each: each[1].start):
        if found := common(Fragment(wanted.name, start, end - start), piece):
            if found.start > start:
                break
            yield number, found
            start = found.start + found.count
    if start < end:
        raise LookupError(f"value {start} of {wanted.name}")
