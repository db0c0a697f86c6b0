"""Whose folder it is: whether ranks on several nodes write into one folder or each node into its own."""

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from refiner_ds.world import World

Gather = Callable[[Any], list[Any]]
"""What every rank gives, by rank; all ranks must call it."""


@dataclass(frozen=True)
class Place:
    """Where this rank writes: the ranks that see the same folder, of which the first commits and deletes there."""

    rank: int
    ranks: tuple[int, ...]

    @property
    def leads(self) -> bool:
        """True on the one rank of the place that commits and deletes."""
        return self.rank == self.ranks[0]

    def share(self, names: list[str]) -> list[str]:
        """Of files that lie in the place those that this rank reads: all ranks of the place together read each once."""
        return sorted(names)[self.ranks.index(self.rank) :: len(self.ranks)]


def find_place(folder: Path, world: World, gathered: Gather) -> Place:
    """Finds out by files that the first rank of each node leaves for the others. All ranks must call.

    They are looked up by name and not listed, as a network folder may show an old list.
    """
    token = gathered(os.urandom(8).hex())[0]
    firsts = [rank for rank, local_rank in enumerate(gathered(world.local_rank)) if local_rank == 0]
    mark = folder / f".place-{token}-{world.rank}"
    if world.local_rank == 0:
        mark.touch()
    gathered(None)
    seen = [rank for rank in firsts if (folder / f".place-{token}-{rank}").exists()]
    places = gathered(min(seen))
    mark.unlink(missing_ok=True)
    return Place(world.rank, tuple(rank for rank, place in enumerate(places) if place == places[world.rank]))
