"""One rank of `refiner-ds bench exchange`: `python -m refiner_ds.verbs.bench_exchange_rank JOB`, started on every host.

JOB is JSON: the process of the `bench`, the base, `ways`, `precision`, `accumulation`, `micro_batch`, `side`, `steps`,
`bucket`, the network `card` and how many ranks share it, and the file that rank 0 answers into.
"""

import copy
import json
import os
import sys
import time
from contextlib import nullcontext
from datetime import timedelta
from pathlib import Path
from typing import Any

import psutil
import torch

from refiner_ds.batch import Batch
from refiner_ds.bench.exchange import COALESCED, WHOLE
from refiner_ds.config.deepspeed import resolve
from refiner_ds.config.training import Train
from refiner_ds.refiners.unclip.options import Recipe
from refiner_ds.refiners.unclip.refiner import UnclipRefiner
from refiner_ds.supervise.link import end_with
from refiner_ds.train.engine import Engine, start_process_group
from refiner_ds.train.meeting import leave_process_group
from refiner_ds.train.precision import DTYPES
from refiner_ds.verbs.bench_model import SEED
from refiner_ds.verbs.plan import STANDARD
from refiner_ds.world import World, world_from

RATE = 1e-4


def main() -> None:
    """Measures every way, and answers on rank 0."""
    job, world = json.loads(sys.argv[1]), world_from(os.environ)
    end_with(job["bench"])
    device = start_process_group(world, timedelta(minutes=10))
    refiner = UnclipRefiner(job["base"], frozen_dtype=torch.float32)
    refiner.place(device, DTYPES[job["precision"]])
    refiner.prepare_training(Recipe())
    features = [refiner.encode(_noise(job, world, micro)) for micro in range(job["accumulation"])]
    found = {way: _measured(way, job, refiner, features, world, device) for way in job["ways"]}
    if world.is_main:
        Path(job["answer"]).write_text(json.dumps(found), encoding="utf-8")
    leave_process_group()


def _noise(job: dict[str, Any], world: World, micro: int) -> Batch:
    """A micro-batch of pictures that show nothing, of other samples on every rank."""
    count, side = job["micro_batch"], job["side"]
    first = (micro * world.size + world.rank) * count
    drawn = torch.Generator().manual_seed(first)
    render, gt, cond = torch.randint(256, (3, count, 3, side, side), generator=drawn, dtype=torch.uint8)
    numbers = range(first, first + count)
    return Batch(render, gt, cond, tuple(numbers), tuple(f"{number:06d}" for number in numbers))


def _measured(
    way: str, job: dict[str, Any], refiner: UnclipRefiner, features: list[Any], world: World, device: torch.device
) -> dict[str, float]:
    """Seconds and bytes sent of a step."""
    stage, is_coalesced = 1 if way == WHOLE else 2, way == COALESCED
    # within its block DeepSpeed counts one micro-batch, however often gradients come
    counted = 1 if is_coalesced else job["accumulation"]
    flags = Train("", "", Path(), train_batch_size=job["micro_batch"], mixed_precision=job["precision"],
                  gradient_accumulation_steps=counted)  # fmt: skip
    zero = {**STANDARD["zero_optimization"], "stage": stage, "reduce_bucket_size": job["bucket"]}
    resolved = resolve({**STANDARD, "zero_optimization": zero}, flags, world.size)
    engine = Engine(copy.deepcopy(refiner.network), resolved, device)
    engine.set_learning_rate(RATE)

    def step() -> None:
        with engine.wrapper.coalesce_grad_reduction() if is_coalesced else nullcontext():
            for each in features:
                loss = refiner.loss(engine.network, engine.dtype, each, SEED)["loss"]
                engine.backward(loss * counted / len(features))
                if not is_coalesced:
                    engine.step()
        if is_coalesced:
            engine.step()

    step()
    torch.distributed.barrier()
    sent, began = _sent(job["card"]), time.perf_counter()
    for _ in range(job["steps"]):
        step()
    torch.distributed.barrier()
    seconds, sent = time.perf_counter() - began, _sent(job["card"]) - sent
    trained = engine.num_trained
    engine.close()
    return {
        "seconds": seconds / job["steps"],
        "sent": sent / job["steps"] / job["ranks_of_card"],
        "trained": trained,
    }


def _sent(card: str) -> int:
    """Bytes that a network card has sent."""
    return psutil.net_io_counters(pernic=True)[card].bytes_sent


if __name__ == "__main__":
    main()
