"""Started on every rank: trains a small network in every case that it reads as JSON, saves and continues, or continues
from what another number of ranks has saved, and leaves rank 0's losses as JSON."""

import json
import os
import sys
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
from deepspeed.accelerator import get_accelerator

from refiner_ds.checkpoint.place import find_place
from refiner_ds.checkpoint.retention import Keep
from refiner_ds.checkpoint.state import SavedState
from refiner_ds.checkpoint.store import Saver
from refiner_ds.train.engine import Engine, start_process_group
from refiner_ds.train.side import SideChannel
from refiner_ds.world import World, world_from
from tests.train.one_rank import new_engine

GLOBAL_BATCH, HALF, WHOLE = 12, 4, 8
"""Samples of a step, and steps."""


def advance(engine: Engine, world: World, first: int, last: int) -> list[float]:
    """Makes updates from samples that depend on nothing but step and place, as in training; mean loss of each."""
    losses = []
    for step in range(first, last):
        engine.set_learning_rate(0.01)
        total = torch.zeros(1)
        for place in range(world.rank, GLOBAL_BATCH, world.size):
            inputs = torch.randn(1, 3, 8, 8, generator=torch.Generator().manual_seed(100 * (step % 2) + place))
            loss = (engine.network(inputs.to(engine.dtype)).float() - inputs.flatten(1)).square().mean()
            engine.backward(loss)
            engine.step()
            total += loss.detach()
        losses.append(float(engine.mean_over_ranks(total)) * world.size / GLOBAL_BATCH)
    return losses


def tell(case: dict[str, Any], world: World, device: torch.device, side: SideChannel) -> dict[str, Any]:
    """What comes of one case; `load` is a folder of a checkpoint, `save` one for checkpoints of this run."""
    flags = {**case.get("flags", {}), "train_batch_size": 1, "gradient_accumulation_steps": GLOBAL_BATCH // world.size}
    engine = new_engine({"json": case["json"], "flags": flags}, device, case.get("ema"), num_ranks=world.size)
    folder = Path(case["save"])
    if world.is_main:
        folder.mkdir(parents=True)
    place = find_place(folder.parent, world, side.gathered)
    saver = Saver(folder, place, side.gathered, Keep(), {}, print)
    if "load" not in case:
        losses = advance(engine, world, 0, HALF)
        saver.begin(HALF, engine.snapshot, {})
        saver.finish()
        losses += advance(engine, world, HALF, WHOLE)
    else:
        engine.restore(SavedState(Path(case["load"])))
        saver.begin(HALF, engine.snapshot, {})
        saver.finish()
        losses = advance(engine, world, HALF, WHOLE)
    told = {"losses": losses, "skipped": engine.skipped_steps, "scale": engine.loss_scale}
    engine.close()
    return told


if __name__ == "__main__":
    get_accelerator().is_fp16_supported = lambda: True
    world = world_from(os.environ)
    device = start_process_group(world, timedelta(minutes=2))
    side = SideChannel(timedelta(minutes=2))
    cases, out = json.loads(Path(sys.argv[1]).read_text()), Path(sys.argv[2])
    told = {name: tell(case, world, device, side) for name, case in cases.items()}
    if world.is_main:
        out.write_text(json.dumps(told))
    torch.distributed.barrier()
    torch.distributed.destroy_process_group()
