"""`refiner-ds bench step`: what a training step costs on this machine, by ours, by the baseline's way and at least."""

from datetime import timedelta
from pathlib import Path

import torch

from refiner_ds.bench.step_material import make_material
from refiner_ds.bench.step_report import as_json, as_markdown
from refiner_ds.bench.turns import Row, race
from refiner_ds.config.deepspeed import Resolved, resolve
from refiner_ds.config.training import Train
from refiner_ds.config.verbs.benches import BenchStep
from refiner_ds.errors import UserError
from refiner_ds.train.engine import start_process_group
from refiner_ds.train.meeting import leave_process_group
from refiner_ds.verbs.bench_model import DISK_BYTES, SHAPES, Setting, folder_for, load_now, make_base, setting_of
from refiner_ds.verbs.bench_step_ways import contenders
from refiner_ds.verbs.measured import prepare_files, tell
from refiner_ds.verbs.plan import STANDARD
from refiner_ds.verbs.progress import progress_bar
from refiner_ds.world import World


def run(options: BenchStep) -> None:
    """Measures, and prints the tables."""
    setting = setting_of(options)
    if setting.device.type == "cpu" and torch.cuda.is_available():
        raise UserError(
            "--device cpu, but DeepSpeed takes the GPU wherever torch finds one, so ours would not run on the CPU; set "
            "CUDA_VISIBLE_DEVICES to nothing for this command."
        )
    resolved = _resolved(options, setting)
    prepare_files(options.json, options.markdown)
    load = load_now()
    with folder_for(setting.size, DISK_BYTES[setting.size]) as folder:
        start_process_group(World(), timedelta(minutes=30))
        try:
            rows = _measured(setting, resolved, options, folder)
        finally:
            leave_process_group()
    what = (
        f"micro-batch {resolved.micro_batch_size}, accumulation {resolved.accumulation_steps}, ours in "
        f"{setting.precision_told} under ZeRO-{resolved.stage} on one rank, AdamW"
    )
    sizes = {"micro_batch_size": resolved.micro_batch_size, "accumulation_steps": resolved.accumulation_steps}
    about = setting.about("bench step", options, load, what, **sizes)
    tell(as_markdown(rows, about), as_json(rows, about), options.json, options.markdown)


def _measured(setting: Setting, resolved: Resolved, options: BenchStep, folder: Path) -> list[Row]:
    with progress_bar() as telling:
        material = make_material(
            folder / "pictures",
            setting.height,
            setting.width,
            resolved.micro_batch_size,
            resolved.accumulation_steps,
            telling,
        )
        base = make_base(SHAPES[setting.size], folder)
        ways = contenders(base, material, resolved, setting.device, options.compile)
        return race(ways, options.rounds, resolved.global_batch_size, setting.device, telling)


def _resolved(options: BenchStep, setting: Setting) -> Resolved:
    """What training would be told.

    Raises:
        UserError: there would be no sample to train on.
    """
    flags = Train("", "", Path(), train_batch_size=options.train_batch_size, mixed_precision=setting.precision,
                  gradient_accumulation_steps=options.gradient_accumulation_steps)  # fmt: skip
    return resolve(STANDARD, flags, 1)
