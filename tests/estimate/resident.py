"""A rank that trains two steps by training's own functions and saves, and tells how much its resident set grew by each.

python -m tests.estimate.resident CONFIG JOBS, under a launcher. JOBS is JSON, for each job base, lora_rank, crop and
out: OUT/RANK.json has the bytes, OUT/checkpoint-2 is what training saves. Only the first job's bytes are its own.
"""

import ctypes
import gc
import itertools
import json
import os
import re
import sys
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch

from refiner_ds.batch import Batch
from refiner_ds.checkpoint.place import Place
from refiner_ds.checkpoint.retention import Keep
from refiner_ds.checkpoint.store import Saver
from refiner_ds.config.deepspeed import read_json, resolve
from refiner_ds.config.training import Train
from refiner_ds.refiners.unclip.options import Adaptation, Recipe
from refiner_ds.refiners.unclip.refiner import UnclipRefiner
from refiner_ds.train.engine import Engine, start_process_group
from refiner_ds.train.meeting import gathered
from refiner_ds.train.step import optimizer_step
from refiner_ds.train.work import Work
from refiner_ds.world import world_from

STEPS = 2


def status(name: str) -> int:
    """Bytes of VmRSS or VmHWM."""
    gc.collect()
    ctypes.CDLL("libc.so.6").malloc_trim(0)
    return int(re.search(rf"{name}:\s+(\d+) kB", Path("/proc/self/status").read_text())[1]) * 1024


def warm_up() -> None:
    """Kernels and threads that the first product, convolution and way back bring, whatever the network is."""
    for dtype in (torch.float32, torch.bfloat16):
        layers = torch.nn.Sequential(torch.nn.Conv2d(8, 8, 3), torch.nn.GroupNorm(2, 8), torch.nn.Linear(6, 6)).to(
            dtype
        )
        layers(torch.randn(1, 8, 8, 8, dtype=dtype)).sum().backward()


def train(config: Path, base: str, lora_rank: int | None, crop: int, out: Path) -> None:
    """Two steps of one job, and its checkpoint."""
    world = world_from(os.environ)
    device = torch.device("cpu")
    flags = Train(shards="", pretrained_model_name_or_path=base, output_dir=out)
    resolved = resolve(read_json(config), flags, world.size)
    before = status("VmRSS")

    refiner = UnclipRefiner(base, adaptation=Adaptation(lora_rank=lora_rank))
    engine = Engine(refiner.network, resolved, device, 0.999)
    refiner.place(device, engine.dtype)
    refiner.prepare_training(Recipe())
    status("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # the high-water mark starts anew: loading is not in it

    pictures = torch.randint(256, (resolved.micro_batch_size, 3, crop, crop), dtype=torch.uint8)
    positions = tuple(range(len(pictures)))
    batches = itertools.repeat(Batch(pictures, pictures, pictures, positions, ("",) * len(pictures)))
    work = Work(device)
    for _ in range(STEPS):
        optimizer_step(refiner, engine, batches, work, resolved.accumulation_steps, 1e-4, 0, lambda: True)
    stepping, before_saving = status("VmHWM") - before, status("VmRSS")
    saver = Saver(out, Place(world.rank, tuple(range(world.size))), gathered, Keep(), {}, print)
    saver.begin(STEPS, engine.snapshot, {})
    assert saver.finish()
    grown = {"stepping": stepping, "saving": status("VmRSS") - before_saving}
    (out / f"{world.rank}.json").write_text(json.dumps(grown))
    engine.close()


def main(config: Path, jobs: list[dict[str, Any]]) -> None:
    start_process_group(world_from(os.environ), timedelta(minutes=2))
    warm_up()
    for job in jobs:
        train(config, job["base"], job["lora_rank"], job["crop"], Path(job["out"]))
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main(Path(sys.argv[1]), json.loads(sys.argv[2]))
