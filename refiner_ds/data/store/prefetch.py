"""Work ahead in the background: one item after the other, each as soon as it can be."""

import threading
from collections.abc import Callable, Iterable
from typing import Generic, TypeVar

Item = TypeVar("Item")

POLL_SECONDS = 0.2
"""How often it is tried again whether there is room: other processes make some without telling."""


class Prefetch(Generic[Item]):
    """A thread that brings items, in order.

    Args:
        bring: does one item and is told the event that calls it off; False where it has to wait and be asked again.
    """

    def __init__(self, items: Iterable[Item], bring: Callable[[Item, threading.Event], bool]) -> None:
        self._items, self._bring = items, bring
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="prefetch", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Ends it, in the middle of a download if need be, and waits until it has ended."""
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        for item in self._items:
            while not self._stop.is_set() and not self._bring(item, self._stop):
                self._stop.wait(POLL_SECONDS)
