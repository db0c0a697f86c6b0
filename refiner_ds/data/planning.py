"""Which shard a node reads when, for its cache: one process plans and fetches ahead, all of them evict by its plan.

The plan is a file in the cache folder, an array of int64: the step that the run has reached, then the uses of all
shards (`locality.uses_of`). It is replaced as a whole once an epoch; its first number is written in place at each step.
"""

import math
import os
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from refiner_ds.data.index import Shard
from refiner_ds.data.locality import NEVER, next_uses, uses_of
from refiner_ds.data.order import Order
from refiner_ds.data.store.cache import Cache
from refiner_ds.data.store.files import Held
from refiner_ds.errors import UserError

POLL_SECONDS = 0.5
"""How often the planner looks at how far the run has come."""
EPOCHS = 2
"""How far a plan reaches; when half of that is over, the next one is made."""


class NextUses:
    """When this node reads a shard next, by the shard's name: a step; math.inf where the plan does not say.

    Belongs to one process, and can be sent to others, which read the same file.
    """

    _table: np.ndarray | None
    _steps: tuple[int, np.ndarray] | None
    _file: int

    def __init__(self, path: Path, shards: Sequence[Shard]) -> None:
        self.path, self._count = path, len(shards)
        self._numbers: dict[str, list[int]] = {}
        for number, shard in enumerate(shards):  # a foreign tar is two shards where both splits are in it
            self._numbers.setdefault(shard.name, []).append(number)
        self._forget()

    def __call__(self, name: str) -> float:
        steps = self.steps()
        step = min((int(steps[number]) for number in self._numbers.get(name, ())), default=NEVER)
        return math.inf if step == NEVER else step

    def steps(self) -> np.ndarray:
        """The next step of every shard by its number, (shards,) int64, or NEVER."""
        self._look()
        if self._table is None:
            return np.full(self._count, NEVER)
        reached = int(self._table[0])
        if self._steps is None or self._steps[0] != reached:
            self._steps = reached, next_uses(self._table[1:], reached, self._count)
        return self._steps[1]

    def _look(self) -> None:
        """Maps the plan that is there now, where that is another one than before."""
        try:
            file = os.stat(self.path).st_ino  # of a file that is still mapped, no other one can have it
            if file != self._file:
                self._table, self._steps, self._file = np.memmap(self.path, np.int64, "r"), None, file
        except (OSError, ValueError):  # there is none yet, or somebody emptied the folder
            self._forget()

    def _forget(self) -> None:
        self._table, self._steps, self._file = None, None, -1

    def __getstate__(self) -> dict[str, Any]:
        return {name: self.__dict__[name] for name in ("path", "_count", "_numbers")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._forget()


class Planner:
    """Writes the plan of a node and fetches shards ahead by it, in the background; one process of a node has one.

    Args:
        steps: those of the run that are still to come.
        places: what the node fills of every global batch.
        next_uses: reads the plan back.
        prefetch: is given the shards that are not in the cache, in the order of their next use.
        tell: told in a sentence why there is no plan.
    """

    def __init__(
        self,
        order: Order,
        steps: range,
        places: range,
        shards: Sequence[Shard],
        cache: Cache,
        next_uses: NextUses,
        prefetch: Callable[[Sequence[Shard]], None],
        tell: Callable[[str], None] | None,
    ) -> None:
        self._order, self._steps, self._places, self._shards = order, steps, places, shards
        self._cache, self._next_uses, self._prefetch, self._tell = cache, next_uses, prefetch, tell
        self._reached = steps.start
        self._table: np.memmap | None = None
        self._held: Held | None = None
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="planner", daemon=True)
        self._thread.start()

    def reach(self, step: int) -> None:
        """Tells that the run is about to make this step."""
        self._reached = step
        if self._table is not None:
            self._table[0] = step

    def call_off(self) -> None:
        """Lets planning end, and does not wait for that."""
        self._is_over.set()

    def close(self) -> None:
        """Ends planning; the plan is no longer in use, and the cache clears it away."""
        self.call_off()
        self._thread.join()
        if self._held:
            self._held.release()
            self._held = None

    def _run(self) -> None:
        renewed_at, ordered_at = self._steps.start, -1
        while not self._is_over.is_set():
            step = self._reached
            try:
                if step >= renewed_at:
                    self._write(step)
                    renewed_at = step + max(1, self._order.steps_of(EPOCHS / 2))
            except (UserError, OSError) as error:  # what is evicted is then what was used least recently
                if self._tell:
                    self._tell(f"shards are not fetched ahead: {error}")
                return
            if step > ordered_at:
                self._prefetch(self._missing())
                ordered_at = step
            self._is_over.wait(POLL_SECONDS)

    def _write(self, step: int) -> None:
        last = min(self._steps.stop, step + self._order.steps_of(EPOCHS))
        table = np.concatenate([[step], uses_of(self._order, step, last, self._places)]).astype(np.int64)
        digests = {shard.sha256: shard.name for shard in self._shards}
        held = self._cache.place(
            self._next_uses.path.name, table.tobytes(), lambda sha256: self._next_uses(digests.get(sha256, ""))
        )
        self._table = np.memmap(held.path, np.int64, "r+")
        self._table[0] = self._reached  # the run went on meanwhile
        if self._held:
            self._held.release()
        self._held = held

    def _missing(self) -> list[Shard]:
        """The shards that are not in the cache and will be read, soonest first."""
        steps, cached = self._next_uses.steps(), self._cache.shards()
        numbers = np.argsort(steps, kind="stable")[: int((steps != NEVER).sum())]
        return [shard for number in numbers if (shard := self._shards[number]).sha256 not in cached]
