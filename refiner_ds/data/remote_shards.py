"""Members of shards on another machine: read from the node's cache, or by ranges, as the run's plan has it."""

import hashlib
import os
from collections.abc import Callable, Sequence

from refiner_ds.data.index import SOURCES_NAME, Index, Shard
from refiner_ds.data.locality import shards_at_once
from refiner_ds.data.order import Order
from refiner_ds.data.planning import NextUses, Planner
from refiner_ds.data.store.cache import Cache
from refiner_ds.data.store.contract import Damaged, Store
from refiner_ds.data.store.files import PLAN


class RemoteShards:
    """Reads members through a store.

    A shard is held for the time of one read only: what is held cannot be evicted, and the many workers of a node would
    fill a small cache with what each has read last.

    Args:
        location: what errors call the store.
        tell: told in a sentence what makes reading slow; None tells nobody.
    """

    def __init__(
        self, store: Store, location: str, cache: Cache | None, tell: Callable[[str], None] | None = None
    ) -> None:
        self.location = location
        self._store, self._cache, self._tell = store, cache, tell
        self._planner: Planner | None = None

    def read(self, shard: Shard, offset: int, size: int) -> bytes:
        """`size` bytes of a shard; fewer where the copy in the cache ends early.

        Raises:
            UserError: they cannot be had.
        """
        try:
            path = self._store.fetch(shard)
        except Damaged:  # most of its samples may be sound
            path = None
        if path is None:
            return self._store.read(shard.name, offset, size)
        try:
            descriptor = os.open(path, os.O_RDONLY)
            try:
                return os.pread(descriptor, size, offset)
            finally:
                os.close(descriptor)
        except OSError:  # of the cache and not of the shard: somebody emptied it, or its disk fails
            return self._store.read(shard.name, offset, size)
        finally:
            self._store.release(shard)

    def sources(self) -> bytes:
        """The content of sources.jsonl, which is copied nowhere: it is read once, by whoever validates.

        Raises:
            UserError: it cannot be had.
        """
        return self._store.read_small(SOURCES_NAME)

    def mend(self, shard: Shard) -> bool:
        """Throws a damaged copy out of the cache; whether reading again may give other bytes."""
        return self._cache is None or not self._store.recheck(shard)

    def plan(self, index: Index, order: Order, steps: range, places: range, run: str, leads: bool) -> None:
        """See `Shards.plan`."""
        if self._cache is None:
            return
        name = hashlib.sha256(f"{run} {index.digest} {places}".encode()).hexdigest()[:32]
        next_uses = NextUses(self._cache.folder / f"{name}{PLAN}", index.shards)
        self._store.plan(index.shards, next_uses)
        if leads:
            self._tell_of_room(index, shards_at_once(order, places), self._cache)
            self._planner = Planner(
                order, steps, places, index.shards, self._cache, next_uses, self._store.prefetch, self._tell
            )

    def _tell_of_room(self, index: Index, count: int, cache: Cache) -> None:
        """Tells where shards will be downloaded again and again."""
        size = count * max(shard.bytes for shard in index.shards)
        if self._tell and size > cache.limit_bytes:
            self._tell(
                f"--shard_cache_limit {cache.limit_bytes} bytes are fewer than the {size} of the {count} shards that a "
                "node reads at about one time, so they are downloaded several times in an epoch; give it more room, or "
                "lower --shuffle_window_shards."
            )

    def reach(self, step: int) -> None:
        """See `Shards.reach`."""
        if self._planner:
            self._planner.reach(step)

    def read_ahead(self, shards: Sequence[Shard]) -> None:
        """See `Shards.read_ahead`."""
        self._store.prefetch(shards)

    def call_off(self) -> None:
        """See `Shards.call_off`."""
        if self._planner:
            self._planner.call_off()
        self._store.call_off()

    def close(self) -> None:
        """Ends all work in the background."""
        if self._planner:
            self._planner.close()
            self._planner = None
        self._store.close()

    def __getstate__(self) -> dict:
        return {**self.__dict__, "_planner": None, "_tell": None}
