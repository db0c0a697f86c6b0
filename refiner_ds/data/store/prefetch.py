"""Work ahead in the background: one item after the other, each as soon as it can be."""

import threading
from collections.abc import Callable, Iterable, Iterator
from typing import Generic, TypeVar

Item = TypeVar("Item")

POLL_SECONDS = 0.2
"""How often it is tried again whether there is room: other processes make some without telling."""


class Prefetch(Generic[Item]):
    """A thread that brings items, in order.

    Args:
        bring: does one item and is told the event that calls it off; False where it has to wait and be asked again.
    """

    def __init__(self, bring: Callable[[Item, threading.Event], bool]) -> None:
        self._bring = bring
        self._items: Iterator[Item] = iter(())
        self._has_items, self._stop = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._run, name="prefetch", daemon=True)
        self._thread.start()

    def replace(self, items: Iterable[Item]) -> None:
        """What to bring from now on; the item that it is bringing is brought all the same."""
        self._items = iter(items)
        self._has_items.set()

    def call_off(self) -> None:
        """Lets it end, in the middle of a download if need be, and does not wait for that."""
        self._stop.set()
        self._has_items.set()

    def stop(self) -> None:
        """Ends it, in the middle of a download if need be, and waits until it has ended."""
        self.call_off()
        self._thread.join()

    def _run(self) -> None:
        while not self._stop.is_set():
            self._has_items.wait()
            self._has_items.clear()
            items = self._items
            for item in items:
                while not self._is_outdated(items) and not self._bring(item, self._stop):
                    self._stop.wait(POLL_SECONDS)

    def _is_outdated(self, items: Iterator[Item]) -> bool:
        return self._stop.is_set() or items is not self._items
