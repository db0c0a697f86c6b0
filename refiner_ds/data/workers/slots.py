"""Memory that this process and its workers share: slots of one size, used again and again, without a name to clean up.

What would be left of a killed run under /dev/shm, and what a container's limit of it would refuse, does not come up:
the memory is an open file without a path, and it is gone when the last process that holds it is.
"""

import math
import mmap
import os
import weakref
from collections.abc import Sequence

import numpy as np

PAGE = mmap.PAGESIZE


class Slots:
    """Slots of `size` bytes each.

    Args:
        descriptor: of the memory, which a worker has got from its parent; None makes it.
    """

    def __init__(self, count: int, size: int, descriptor: int | None = None) -> None:
        self.count, self.size = count, -(-size // PAGE) * PAGE
        self.descriptor = os.memfd_create("slots") if descriptor is None else descriptor
        if descriptor is None:
            os.truncate(self.descriptor, self.count * self.size)
        self._memory = mmap.mmap(self.descriptor, self.count * self.size)

    def close(self) -> None:
        """Lets no further process have it; arrays stay as they are."""
        os.close(self.descriptor)

    def array(self, slot: int, shape: Sequence[int]) -> np.ndarray:
        """A slot, or the beginning of it, as uint8 of this shape."""
        return np.frombuffer(self._memory, np.uint8, math.prod(shape), slot * self.size).reshape(shape)


class Lender:
    """Which slots are free. One that is lent as an array is free again once nothing refers to the array's memory."""

    def __init__(self, slots: Slots) -> None:
        self.slots = slots
        self.free = list(range(slots.count))

    def take(self) -> int:
        """A slot that is free no more: to be lent or copied."""
        return self.free.pop()

    def lend(self, slot: int, shape: Sequence[int]) -> np.ndarray:
        """The slot as an array, whose views and tensors keep it from being used again."""
        array = self.slots.array(slot, shape)
        weakref.finalize(array.base, self.free.append, slot)  # which all views of it refer to, and not to the array
        return array

    def copy(self, slot: int, shape: Sequence[int]) -> np.ndarray:
        """What is in the slot, which is free at once."""
        array = self.slots.array(slot, shape).copy()
        self.free.append(slot)
        return array
