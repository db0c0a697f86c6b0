"""Started as a process: trains a small network in engines of one rank, in one go and again from a checkpoint half-way,
for every case that it reads as JSON (configuration, flags, learning rate), and prints what came of each as JSON."""

import json
import math
import sys
import tempfile
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import nn

from refiner_ds.checkpoint.snapshot import MASTER, file_of, write_snapshot
from refiner_ds.checkpoint.state import SavedState
from refiner_ds.config.deepspeed import resolve
from refiner_ds.config.training import Train
from refiner_ds.train.engine import Engine, start_process_group
from refiner_ds.world import World

HALF, WHOLE = 5, 10


def new_engine(
    case: dict[str, Any], device: torch.device, ema_decay: float | None = None, num_ranks: int = 1, **others: Any
) -> Engine:
    """An engine around the same small network at each call; `case` has json and flags, `others` are flags beside."""
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(3, 32, 3, padding=1), nn.SiLU(), nn.Conv2d(32, 3, 3, padding=1), nn.Flatten())
    network.append(nn.Linear(192, 192))
    given = {"train_batch_size": 4, "gradient_accumulation_steps": 1, **case["flags"], **others}
    resolved = resolve(case["json"], Train("shards", "base", Path("run"), **given), num_ranks)
    return Engine(network, resolved, device, ema_decay)


def save(engine: Engine, folder: Path) -> None:
    """Writes what a checkpoint of one rank holds."""
    folder.mkdir()
    write_snapshot(folder / file_of(0), engine.snapshot())


def advance(engine: Engine, first: int, last: int, rate: float) -> list[float]:
    """Makes the updates first, ..., last - 1 and returns their losses; inputs depend on nothing but the update."""
    losses = []
    for step in range(first, last):
        inputs = torch.randn(4, 3, 8, 8, generator=torch.Generator().manual_seed(step % 2))
        engine.set_learning_rate(rate * (1 + step / 10))
        loss = (engine.network(inputs.to(engine.dtype)).float() - inputs.flatten(1)).square().mean()
        engine.backward(loss)
        engine.step()
        losses.append(loss.item())
    return losses


def state_of(checkpoint: Path) -> dict[str, list[Any]]:
    """Type and bytes of all tensors of the optimizer's state in a checkpoint, by name."""
    found: dict[str, list[Any]] = {}
    for name, tensor in load_file(checkpoint / file_of(0)).items():
        kind, slash, _ = name.partition("/")
        kind = kind if slash else name.partition(".")[2]
        if kind != MASTER:
            found[kind] = [str(tensor.dtype), found.get(kind, ["", 0])[1] + tensor.nbytes]
    return found


def tell(case: dict[str, Any], device: torch.device, folder: Path) -> dict[str, Any]:
    """What comes of one case."""
    whole = new_engine(case, device)
    losses = advance(whole, 0, HALF, case["rate"])
    save(whole, folder / "half")
    losses += advance(whole, HALF, WHOLE, case["rate"])
    save(whole, folder / "whole")
    again = new_engine(case, device)
    again.restore(SavedState(folder / "half"))
    resumed = advance(again, HALF, WHOLE, case["rate"])
    save(again, folder / "again")
    one, two = (SavedState(folder / name) for name in ("whole", "again"))
    other = new_engine(case, device, **case["other_flags"])
    other.restore(SavedState(folder / "half"))
    other.set_learning_rate(0.5)
    (group,) = other._optimizer.param_groups
    zeros_group = whole._optimizer.dp_process_group._get_backend(device)
    return {
        "zeros_timeout_seconds": zeros_group.options._timeout.total_seconds(),
        "losses": losses,
        "resumed": resumed,
        "weights_are_equal": all(torch.equal(one.whole(name), two.whole(name)) for name in one.shapes),
        "numbers": sum(math.prod(shape) for shape in one.shapes.values()),
        "state": state_of(folder / "half"),
        "optimizer": type(other._optimizer.optimizer).__name__,
        "group": {name: value for name, value in group.items() if name != "params"},
    }


if __name__ == "__main__":
    device = start_process_group(World(), timedelta(minutes=2))
    told = {}
    for name, case in json.load(sys.stdin).items():
        with tempfile.TemporaryDirectory() as folder:
            told[name] = tell(case, device, Path(folder))
    print("\n" + json.dumps(told))
