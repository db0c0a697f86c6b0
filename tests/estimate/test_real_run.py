"""What plan says beside what a real run takes: the resident set of two ranks on the CPU, and their checkpoints."""

import json
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from refiner_ds.config.deepspeed import read_json, resolve
from refiner_ds.config.training import Train
from refiner_ds.estimate.activations import measure
from refiner_ds.estimate.disk import checkpoint_bytes
from refiner_ds.estimate.memory import SNAPSHOT, Bill, bill
from refiner_ds.estimate.parameters import Counts, count
from refiner_ds.estimate.setup import setup_of
from refiner_ds.refiners.unclip.base import TINY, make_parts, save_base
from refiner_ds.refiners.unclip.options import Adaptation
from refiner_ds.refiners.unclip.outline import outline_of_base
from tests.train.launch import REPO, ZERO2, free_port

pytestmark = pytest.mark.slow

MIDDLE = replace(TINY, unet_channels=(128, 256, 384, 384), heads=(4, 8, 12, 12), vision_width=64, vision_heads=4)
"""57 M weights: so many that what they and their activations take, a gigabyte, is more than what libraries take."""
CROP = 192
BOUND = 0.15
"""Share by which the resident set may differ. What was seen: 5 to 12 % more than counted with two ranks or one, in bf16
at stages 1 and 2, and 6 % less in fp32; what a save adds, within 0.2 %. What the rest is was not found out: likely
gloo's copies and oneDNN's."""


def trained(config: Path, jobs: list[dict[str, object]]) -> None:
    """tests/estimate/resident.py on two ranks; torchrun and they end with the test."""
    launcher = ["-m", "torch.distributed.run", "--nproc-per-node", "2", "--master-port", free_port()]
    rank = ["-m", "tests.estimate.resident", str(config), json.dumps(jobs, default=str)]
    process = subprocess.Popen(
        [sys.executable, *launcher, *rank],
        cwd=REPO,
        # each large tensor by itself, so that what is freed is given back as a GPU's allocator would take it back
        env={**os.environ, "DS_ACCELERATOR": "cpu", "MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_ARENA_MAX": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    try:
        output, _ = process.communicate(timeout=400)
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
    assert process.returncode == 0, output[-3000:]


def planned(base: Path, config: Path, crop: int, ranks: int) -> tuple[Counts, Bill]:
    outline = outline_of_base(str(base), None, None, Adaptation())
    resolved = resolve(read_json(config), Train("", str(base), Path()), ranks)
    batch = measure(outline, torch.float32, crop, resolved.micro_batch_size, "nothing")
    setup = setup_of(resolved, ranks, has_average=True)
    return count(outline), bill(count(outline), setup, batch)


def bytes_in(checkpoint: Path) -> int:
    return sum(path.stat().st_size for path in checkpoint.iterdir())


@pytest.mark.long
def test_two_ranks_take_the_memory_and_the_disk_that_plan_counts(tiny_base, tmp_path):
    base, config, whole, low_rank = (tmp_path / name for name in ("base", "zero2.json", "whole", "low_rank"))
    for folder in (base, whole, low_rank):
        folder.mkdir()
    save_base(make_parts(MIDDLE, 0, base), base)
    written = json.loads(ZERO2.read_text())
    written |= {"train_micro_batch_size_per_gpu": 2, "gradient_accumulation_steps": 2}
    written["zero_optimization"]["reduce_bucket_size"] = 3_000_000  # so that it is filled: what is not has no pages
    config.write_text(json.dumps(written))

    counts, told = planned(base, config, CROP, 2)
    jobs = {
        whole: {"base": base, "lora_rank": None, "crop": CROP},
        low_rank: {"base": tiny_base, "lora_rank": 32, "crop": 64},
    }
    trained(config, [{**job, "out": out} for out, job in jobs.items()])

    for rank in range(2):
        grown = json.loads((whole / f"{rank}.json").read_text())
        for what, counted in (("stepping", told.total), ("saving", told.host[SNAPSHOT])):
            error = grown[what] / counted - 1
            print(f"rank {rank}, {what}: {grown[what] / 1e6:.0f} MB, counted {counted / 1e6:.0f} MB: {error:+.1%}")
            assert abs(error) < BOUND
    assert told.total == told.moments["backward"] and told.backward["activations"] > 0.25 * told.total
    assert bytes_in(whole / "checkpoint-2") == pytest.approx(checkpoint_bytes(counts.trained, True), rel=0.01)
    few = count(outline_of_base(str(tiny_base), None, None, Adaptation(lora_rank=32)))
    assert few.held > few.trained
    # of so small a network the names of its 500 trained tensors take half a per cent
    assert bytes_in(low_rank / "checkpoint-2") == pytest.approx(checkpoint_bytes(few.trained, True), rel=0.01)
