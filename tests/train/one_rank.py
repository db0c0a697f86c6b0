"""Started as a process: trains a small network in engines of one rank, in one go and again from a checkpoint half-way,
for every case that it reads as JSON (configuration, flags, learning rate), and prints what came of each as JSON."""

import json
import sys
import tempfile
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
from torch import nn

from refiner_ds.checkpoint.export import read_master_weights
from refiner_ds.config.deepspeed import resolve
from refiner_ds.config.training import Train
from refiner_ds.train.engine import Engine, start_process_group
from refiner_ds.world import World

HALF, WHOLE = 5, 10


def new_engine(case: dict[str, Any], device: torch.device, ema_decay: float | None = None, **others: Any) -> Engine:
    """An engine around the same small network at each call; `case` has json and flags, `others` are flags beside."""
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(3, 32, 3, padding=1), nn.SiLU(), nn.Conv2d(32, 3, 3, padding=1), nn.Flatten())
    network.append(nn.Linear(192, 192))
    given = {"train_batch_size": 4, "gradient_accumulation_steps": 1, **case["flags"], **others}
    resolved = resolve(case["json"], Train("shards", "base", Path("run"), **given), 1)
    return Engine(network, resolved, device, ema_decay)


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
    """Type and bytes of each tensor of the optimizer's state in a checkpoint, by name."""
    (file,) = checkpoint.glob("*_optim_states.pt")
    saved = torch.load(file, weights_only=False)["optimizer_state_dict"]["base_optimizer_state"]["state"]
    (state,) = saved.values()
    state |= state.get("__bnb_optimizer_quant_state__", {})
    return {name: [str(v.dtype), v.nbytes] for name, v in state.items() if isinstance(v, torch.Tensor)}


def tell(case: dict[str, Any], device: torch.device, folder: Path) -> dict[str, Any]:
    """What comes of one case."""
    whole = new_engine(case, device)
    losses = advance(whole, 0, HALF, case["rate"])
    whole.save(folder, "half")
    losses += advance(whole, HALF, WHOLE, case["rate"])
    whole.save(folder, "whole")
    again = new_engine(case, device)
    again.load(folder, "half")
    resumed = advance(again, HALF, WHOLE, case["rate"])
    again.save(folder, "again")
    weights, others = (read_master_weights(folder / name) for name in ("whole", "again"))
    other = new_engine(case, device, **case["other_flags"])
    other.load(folder, "half")
    other.set_learning_rate(0.5)
    (group,) = other._optimizer.param_groups
    zeros_group = whole._optimizer.dp_process_group._get_backend(device)
    return {
        "zeros_timeout_seconds": zeros_group.options._timeout.total_seconds(),
        "losses": losses,
        "resumed": resumed,
        "weights_are_equal": all(torch.equal(weights[name], others[name]) for name in weights),
        "numbers": sum(weight.numel() for weight in weights.values()),
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
