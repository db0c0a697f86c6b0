"""One piece of work by several ways of doing it, in turns: knows no engine, no refiner and no picture."""

import gc
import math
import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from statistics import median

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from refiner_ds.bench.measure import forget_own_peak, own_peak_megabytes

SECONDS = 2.0
"""A turn lasts about so long by the clock, in whole steps."""
LEAST_STEPS = 2
STEPS_OF_DUEL = 12
"""Steps of each way in a round of a duel."""
SIDES = {"cpu": 1536, "cuda": 8192}
"""Rows and columns of the square matrices whose product tells a device's peak."""
PRODUCTS = 8
"""How often they are multiplied; the fastest counts."""


class Way:
    """Does the same work again and again: an update of weights, a micro-batch encoded, pictures repaired."""

    @property
    def waited(self) -> float:
        """Seconds so far that its steps have waited for their data."""
        return 0.0

    def step(self) -> Tensor:
        """Does it once; returns a scalar of what it has computed, which nobody has to wait for."""
        raise NotImplementedError

    def settle(self) -> None:
        """Gives up what it has got ahead, so that the clock, which runs next, sees it as it goes on for hours."""

    def close(self) -> None:
        """Lets go of what it took."""


@dataclass(frozen=True)
class Contender:
    """A way by its name, the precision of its matrix products, and what makes it anew."""

    name: str
    dtype: torch.dtype
    make: Callable[[], Way]


@dataclass(frozen=True)
class Turn:
    """What one turn of a way measured.

    Attributes:
        count: pairs or pictures that were worked on while the clock ran, in `seconds`.
        peak_mb: most memory held meanwhile: allocated on a GPU, resident on a CPU, there libraries included.
        first_value: the scalar of the first step, by which ways that compute the same can be told.
        product_flops: FLOP/s of a matrix product in the way's precision, in the same round.
        waited: of the seconds, those in which it waited for its data.
    """

    count: int
    seconds: float
    peak_mb: float
    first_value: float
    product_flops: float
    waited: float = 0.0

    @property
    def per_second(self) -> float:
        """By the clock on the wall."""
        return self.count / self.seconds


@dataclass
class Row:
    """What came of a way; `flops_each` are those of a pair or picture, counted once."""

    contender: Contender
    flops_each: float = 0.0
    turns: list[Turn] = field(default_factory=list)


def race(
    contenders: Sequence[Contender],
    rounds: int,
    count: int,
    device: torch.device,
    tell: Callable[[str, int, int], None],
) -> list[Row]:
    """Measures every way `rounds` times; they take turns, and every second round goes backwards.

    Args:
        count: pairs or pictures of one step.
    """
    rows = [Row(contender) for contender in contenders]
    done, total = 0, rounds * len(rows)
    for number in range(rounds):
        products = {dtype: product_flops(device, dtype) for dtype in {row.contender.dtype for row in rows}}
        for row in rows[:: -1 if number % 2 else 1]:
            way = row.contender.make()
            row.turns.append(_turn(way, count, device, products[row.contender.dtype]))
            if not number:
                row.flops_each = _flops_of(way, device) / count
            way.close()
            del way
            _clear(device)
            done += 1
            tell("measuring", done, total)
    return rows


def duel(one: Contender, other: Contender, rounds: int, device: torch.device) -> list[float]:
    """How many times as fast `one` is as `other`, by round the median of single steps of both.

    Steps take turns, so that a machine whose speed varies over seconds is as fast for one as for the other. Both are
    there at once, which takes the memory of both.
    """
    first, second = one.make(), other.make()
    for way in (first, second):
        _seconds_of(way, LEAST_STEPS, device)  # the first step counts operators
    ratios = []
    for number in range(rounds * STEPS_OF_DUEL):
        seconds = {way: _seconds_of(way, 1, device) for way in ((first, second), (second, first))[number % 2]}
        ratios.append(seconds[second] / seconds[first])
    for way in (first, second):
        way.close()
    _clear(device)
    return [median(ratios[begin : begin + STEPS_OF_DUEL]) for begin in range(0, len(ratios), STEPS_OF_DUEL)]


def _turn(way: Way, count: int, device: torch.device, product: float) -> Turn:
    first_value = float(way.step())
    steps = max(LEAST_STEPS, math.ceil(SECONDS / _seconds_of(way, 1, device)))
    way.settle()
    waited = way.waited
    _forget_peak(device)
    seconds = _seconds_of(way, steps, device)
    return Turn(steps * count, seconds, _peak_mb(device), first_value, product, way.waited - waited)


def _seconds_of(way: Way, steps: int, device: torch.device) -> float:
    _wait(device)
    began = time.perf_counter()
    for _ in range(steps):
        way.step()
    _wait(device)
    return time.perf_counter() - began


def _flops_of(way: Way, device: torch.device) -> int:
    """Floating-point operations of one step; torch counts products and convolutions, so no optimizer's."""
    # torch counts no fused attention on a CPU, so there it is taken apart into products for this one step
    attention = sdpa_kernel(SDPBackend.MATH) if device.type == "cpu" else nullcontext()
    # what is compiled would not be seen
    with attention, torch.compiler.set_stance("force_eager"), FlopCounterMode(display=False) as counter:
        way.step()
    return int(counter.get_total_flops())


def product_flops(device: torch.device, dtype: torch.dtype) -> float:
    """FLOP/s of a product of two square matrices, 2 n^3 each; the fastest of several."""
    side = SIDES[device.type]
    one = torch.randn(side, side, device=device, dtype=dtype)
    seconds = []
    for _ in range(PRODUCTS + 1):  # the first one warms up
        _wait(device)
        began = time.perf_counter()
        torch.mm(one, one)
        _wait(device)
        seconds.append(time.perf_counter() - began)
    return 2 * side**3 / min(seconds[1:])


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _forget_peak(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    else:
        forget_own_peak()


def _peak_mb(device: torch.device) -> float:
    return torch.cuda.max_memory_allocated(device) / 1e6 if device.type == "cuda" else own_peak_megabytes()


def _clear(device: torch.device) -> None:
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
