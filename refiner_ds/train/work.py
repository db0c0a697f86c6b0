"""What this rank computes in micro-batches: how much arithmetic, and how long its own part takes. Nothing waits."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

import torch

from refiner_ds.flops import Arithmetic
from refiner_ds.train.stopwatch import Stopwatch


class Work:
    """Counts the first micro-batch of every picture shape, and times the way forth of the others.

    The way forth, frozen encoders included, needs no other rank under ZeRO-1 and ZeRO-2; on the way back gradients are
    reduced, where a rank waits for the slowest, so no time is taken there. A counted micro-batch is slower, by Python
    around each operator, and is not timed.

    Args:
        eagerly: for a network that is compiled, within it is not: so its operators are counted, and the micro-batch
            after that, the first that compiles the shape, is not timed either.
    """

    def __init__(self, device: torch.device, eagerly: Callable[[], AbstractContextManager[None]] | None = None) -> None:
        self._eagerly = eagerly
        self._compiled: set[tuple[int, ...]] = set()
        self._stopwatch = Stopwatch(device)
        self._known: dict[tuple[int, ...], int] = {}
        self._shape: tuple[int, ...] = ()
        self._counted = 0
        self._flops = 0

    @contextmanager
    def forth(self, shape: tuple[int, ...]) -> Iterator[None]:
        """Around encoding and loss of a micro-batch, by the shape (B, 3, H, W) of its pictures."""
        self._shape, self._counted = shape, 0
        if shape not in self._known:
            with self._eagerly() if self._eagerly else nullcontext(), Arithmetic() as arithmetic:
                yield
            self._counted = arithmetic.flops
        elif self._eagerly and shape not in self._compiled:
            yield
            self._compiled.add(shape)
        else:
            with self._stopwatch:
                yield

    @contextmanager
    def back(self) -> Iterator[None]:
        """Around the way back from that micro-batch's loss."""
        if self._shape in self._known:
            yield
        else:
            with Arithmetic(goes_back=True) as arithmetic:
                yield
            self._known[self._shape] = self._counted + arithmetic.flops
        self._flops += self._known[self._shape]

    def take(self) -> tuple[int, float | None]:
        """Since it was last taken: floating-point operations, and mean seconds of a timed way forth, None without one.

        To be called where the device has caught up, as it has once losses were read; elsewhere it would be waited for.
        """
        flops, self._flops = self._flops, 0
        return flops, self._stopwatch.take()
