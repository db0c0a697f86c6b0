"""Started under a launcher: engines whose updates take several micro-batches, one after the other, for every case that
it reads as JSON from its argument; rank 0 prints what came of each as JSON.

The third update's second micro-batch of the last rank has an infinite loss.
"""

import json
import os
import sys
from collections import Counter
from datetime import timedelta

import torch
from deepspeed.accelerator import get_accelerator

from refiner_ds.train.engine import Engine, start_process_group
from refiner_ds.world import world_from
from tests.train.counting import Counting
from tests.train.one_rank import new_engine

STEPS, ACCUMULATION, BROKEN = 4, 3, 2
COUNTED = ("all_reduce", "reduce_scatter_single", "all_gather_into_tensor", "all_gather")
SMALL = 1024
"""Bytes; what is below are norms and flags."""


def counting(bytes_given: Counter) -> None:
    """From now on what is given to the collectives is counted; they work as before."""
    for name in COUNTED:
        setattr(torch.distributed, name, _counted(name, getattr(torch.distributed, name), bytes_given))


def _counted(name, collective, bytes_given):
    def counted(*args, **kwargs):
        if name == "all_reduce":
            given = args[0] if args else kwargs["tensor"]
        else:
            given = args[1] if len(args) > 1 else kwargs.get("input", kwargs.get("input_tensor"))
        if given.nbytes >= SMALL:
            bytes_given[name] += given.nbytes
        return collective(*args, **kwargs)

    return counted


def weights_of(engine: Engine) -> torch.Tensor:
    """All of them in one vector, on the CPU."""
    return torch.cat([weight.detach().float().flatten() for weight in engine.network.parameters()])


def bytes_beside(engine: Engine) -> int:
    """What the fp32 masters of this rank take beside the network's weights."""
    own = {weight.untyped_storage().data_ptr() for weight in engine.network.parameters()}
    return sum(each.nbytes for each in engine._state.masters if each.untyped_storage().data_ptr() not in own)


def main() -> None:
    world = world_from(os.environ)
    get_accelerator().is_fp16_supported = lambda: True
    bytes_given: Counter = Counter()
    counting(bytes_given)  # before DeepSpeed takes hold of the functions
    device = start_process_group(world, timedelta(minutes=1))
    waits: list[None] = []
    get_accelerator().synchronize = lambda *_: waits.append(None)
    told = {}
    for name, case in json.loads(sys.argv[1]).items():
        engine = new_engine(case, device, None, world.size, gradient_accumulation_steps=ACCUMULATION)
        start = weights_of(engine)
        norms, applied = [], []
        bytes_given.clear()
        waits.clear()
        for step in range(STEPS):
            engine.set_learning_rate(1e-3)
            for micro in range(ACCUMULATION):
                drawn = torch.Generator().manual_seed(step * ACCUMULATION + micro)
                inputs = torch.randn(8, 3, 8, 8, generator=drawn).chunk(world.size)[world.rank]  # same samples for all
                loss = (engine.network(inputs.to(engine.dtype)).float() - inputs.flatten(1)).square().mean()
                is_lost = step == BROKEN and micro == 1 and world.rank == world.size - 1
                engine.backward(loss * (float("inf") if is_lost else 1.0))
                with Counting() as launched:
                    engine.step()
            norms.append(float(engine.gradient_norm))
            applied.append(engine.was_applied)
        weights = weights_of(engine)
        told[name] = {
            "norms": norms,
            "applied": applied,
            "start": start.tolist(),
            "weights": weights.tolist(),
            "bytes": dict(bytes_given),
            "waits": len(waits),
            "count": engine.num_trained,
            "launches": launched.operators.total(),
            "bytes_of_masters": bytes_beside(engine),
        }
        engine.close()
    if world.is_main:
        print(json.dumps(told))


if __name__ == "__main__":
    main()
