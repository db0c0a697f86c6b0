"""How long a rank waits for its data."""

import time
from collections.abc import Iterator
from typing import Generic, TypeVar

Item = TypeVar("Item")


class Waiting(Iterator[Item], Generic[Item]):
    """The same items, and the seconds that `next` took.

    It is the host's time: a GPU may still be busy with what was launched before. Without loading processes, reading
    itself is in it.
    """

    def __init__(self, items: Iterator[Item]) -> None:
        self._items = items
        self._seconds = 0.0

    def __next__(self) -> Item:
        began = time.perf_counter()
        try:
            return next(self._items)
        finally:
            self._seconds += time.perf_counter() - began

    def take(self) -> float:
        """Seconds since it was last taken."""
        seconds, self._seconds = self._seconds, 0.0
        return seconds
