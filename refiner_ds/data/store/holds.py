"""What this process holds in the cache, and how many of its threads use it."""

import threading
from collections import Counter
from pathlib import Path

from refiner_ds.data.store.contract import Stored
from refiner_ds.data.store.files import Held


class Holds:
    """Counts uses, so that a shard is let go with the last of them."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._held: dict[str, Held] = {}
        self._uses: Counter[str] = Counter()

    def again(self, shard: Stored) -> Path | None:
        """One more use of what is held already; None where it is not, or somebody deleted or cut it meanwhile."""
        with self._lock:
            return self._again(shard)

    def take(self, shard: Stored, held: Held) -> Path:
        """The first use of what was just obtained, or one more where another thread was faster."""
        with self._lock:
            if path := self._again(shard):
                held.release()
                return path
            self._held[shard.sha256] = held
            self._uses[shard.sha256] += 1
            return held.path

    def release(self, shard: Stored) -> None:
        """Ends one use."""
        with self._lock:
            if self._uses[shard.sha256] > 1:
                self._uses[shard.sha256] -= 1
                return
            del self._uses[shard.sha256]
            if held := self._held.pop(shard.sha256, None):
                held.release()

    def close(self) -> None:
        """Ends all uses."""
        with self._lock:
            for held in self._held.values():
                held.release()
            self._held.clear()
            self._uses.clear()

    def _again(self, shard: Stored) -> Path | None:
        held = self._held.get(shard.sha256)
        if held is None:
            return None
        if held.is_in_place(shard.bytes):
            self._uses[shard.sha256] += 1
            return held.path
        self._held.pop(shard.sha256).release()  # its uses pass over to what replaces it
        return None
