"""Training states built by hand, and ranks as threads that save them as training does."""

import itertools
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from refiner_ds.checkpoint.fragments import Fragment, Placed
from refiner_ds.checkpoint.place import Gather, Place
from refiner_ds.checkpoint.retention import Keep
from refiner_ds.checkpoint.snapshot import MASTER, Snapshot
from refiner_ds.checkpoint.store import Saver

SHAPES = {"down.weight": (4, 3), "scale": (), "down.bias": (5,), "up.weight": (2, 3, 2)}
"""30 values."""
KINDS = (MASTER, "exp_avg", "exp_avg_sq")
FACTS = {"num_ranks": 2, "precision": "bf16", "stage": 2, "images_seen": 80}
PADDING = 3
"""Values behind what a shard holds, of which nobody may read any."""

Values = dict[str, dict[str, Tensor]]
"""fp32 values by kind and parameter, in the parameter's shape."""


def values_of(seed: int, shapes: Mapping[str, tuple[int, ...]] = SHAPES, kinds: Sequence[str] = KINDS) -> Values:
    """Other values for another seed."""
    random = torch.Generator().manual_seed(seed)
    return {kind: {name: torch.randn(shape, generator=random) for name, shape in shapes.items()} for kind in kinds}


def cut_at(values: Values, bounds: Sequence[int]) -> list[Snapshot]:
    """A snapshot for each rank: rank r holds the flattened values from bounds[r] to bounds[r + 1], and padding."""
    first = next(iter(values.values()))
    shapes = {name: tuple(value.shape) for name, value in first.items()}
    flat = {kind: torch.cat([value.reshape(-1) for value in of.values()]) for kind, of in values.items()}
    made = []
    for start, end in itertools.pairwise(bounds):
        placed, place = [], 0
        for name, value in first.items():
            low, high = max(start, place), min(end, place + value.numel())
            if low < high:
                placed.append(Placed(Fragment(name, low - place, high - low), low - start))
            place += value.numel()
        padding = torch.full((PADDING,), float("nan"))
        shards = {kind: [torch.cat([of[start:end], padding])] for kind, of in flat.items()}
        held = {each.fragment.name: shapes[each.fragment.name] for each in placed}
        loose = {"0.step": torch.tensor(7.0), "0.blocks": torch.arange(len(made), len(made) + 4, dtype=torch.uint8)}
        made.append(Snapshot(shards, [placed], held, loose, {"global_steps": 7, "optimizer": {}, "scaler": {}}))
    return made


def evenly(values: Values, ranks: int) -> list[Snapshot]:
    """As ZeRO cuts: equal shards, of which the last may be shorter."""
    total = sum(value.numel() for value in next(iter(values.values())).values())
    each = -(-total // ranks)
    return cut_at(values, [min(total, rank * each) for rank in range(ranks + 1)])


def as_ranks(ranks: int, act: Callable[[int, Gather], Any]) -> list[Any]:
    """What `act(rank, gathered)` gives on so many threads at once; where one fails, all end."""
    meeting, given = threading.Barrier(ranks), [None] * ranks

    def act_as(rank: int) -> Any:
        def gathered(item: Any) -> list[Any]:
            given[rank] = item
            meeting.wait(timeout=30)
            found = [*given]
            meeting.wait(timeout=30)
            return found

        try:
            return act(rank, gathered)
        except BaseException:
            meeting.abort()
            raise

    with ThreadPoolExecutor(ranks) as threads:
        return list(threads.map(act_as, range(ranks)))


def save(
    folder: Path,
    *steps: int,
    ranks: int = 2,
    keep: Keep = Keep(),  # noqa: B008 (it is frozen)
    figures: Mapping[int, float] | None = None,
    **facts: Any,
) -> list[str]:
    """Saves states of several steps, one after the other, whose seeds are their steps; returns what rank 0 told."""
    told: list[str] = []

    def act(rank: int, gathered: Gather) -> None:
        place = Place(rank, tuple(range(ranks)))
        saver = Saver(folder, place, gathered, keep, figures or {}, told.append if rank == 0 else lambda _: None)
        for step in steps:
            saver.begin(step, lambda: evenly(values_of(step), ranks)[rank], {**FACTS, "num_ranks": ranks, **facts})  # noqa: B023
            saver.finish()
        saver.close()

    folder.mkdir(parents=True, exist_ok=True)
    as_ranks(ranks, act)
    return told
