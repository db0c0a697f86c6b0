"""Started as a process: an engine of one rank in fp16 whose second update is skipped; prints what its average followed.

The argument is the ZeRO stage. The CPU is told to take fp16, as in fp16_on_cpu.py.
"""

import json
import sys
from datetime import timedelta

import torch
from deepspeed.accelerator import get_accelerator

from refiner_ds.train.engine import start_process_group
from refiner_ds.world import World
from tests.train.one_rank import new_engine

get_accelerator().is_fp16_supported = lambda: True
device = start_process_group(World(), timedelta(minutes=1))
config = {
    "fp16": {"enabled": True, "initial_scale_power": 4, "hysteresis": 1},
    "data_types": {"grad_accum_dtype": "fp32"},
    "zero_optimization": {"stage": int(sys.argv[1])},
}
engine = new_engine({"json": config, "flags": {}}, device, ema_decay=0.5)
expected, updates = [shard.clone() for shard in engine._ema.shards], 0
for step in range(4):
    inputs = torch.randn(4, 3, 8, 8, generator=torch.Generator().manual_seed(step)).half()
    engine.set_learning_rate(0.01)
    loss = engine.network(inputs).float().square().mean()
    engine.backward(loss * (float("inf") if step == 1 else 1.0))
    engine.step()
    if step != 1:
        decay = min(0.5, (1 + updates) / (10 + updates))
        for average, weights in zip(expected, engine._state.masters, strict=True):
            average.lerp_(weights, 1 - decay)
        updates += 1
difference = max(float((a - b).abs().max()) for a, b in zip(expected, engine._ema.shards, strict=True))
print(json.dumps({"updates": engine._ema.updates, "skipped": engine.skipped_steps, "difference": difference}))
engine.close()
