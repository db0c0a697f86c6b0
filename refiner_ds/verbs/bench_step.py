"""`refiner-ds bench step`: what a training step costs on this machine, by ours, by the baseline's way and at least."""

import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import torch

from refiner_ds.bench.step import Row, race
from refiner_ds.bench.step_material import make_material
from refiner_ds.bench.step_report import as_json, as_markdown
from refiner_ds.config.deepspeed import Precision, Resolved, resolve
from refiner_ds.config.training import Train
from refiner_ds.config.verbs.benches import BenchStep
from refiner_ds.errors import UserError
from refiner_ds.refiners.unclip.base import FULL, FULL_ENCODERS, TINY, make_parts, save_base
from refiner_ds.train.about import versions
from refiner_ds.train.engine import start_process_group
from refiner_ds.train.meeting import leave_process_group
from refiner_ds.verbs.bench_step_ways import SEED, contenders
from refiner_ds.verbs.device import device_of
from refiner_ds.verbs.measured import command_of, machine_of, prepare_files, tell
from refiner_ds.verbs.plan import STANDARD
from refiner_ds.verbs.progress import progress_bar
from refiner_ds.world import World

SHAPES = {"tiny": TINY, "full-encoders": FULL_ENCODERS, "full": FULL}
RESOLUTIONS = {"tiny": "64x64", "full-encoders": "64x64", "full": "512x512"}
"""Pixels of a crop, HEIGHTxWIDTH, where none are given."""
LEAST_SIDE, FACTOR = 32, 8
"""A side is at least so many pixels, and a multiple of so many, which make one of a latent."""
DISK_BYTES = {"tiny": 50_000_000, "full-encoders": 3_000_000_000, "full": 8_500_000_000}
"""Of the base with random weights, while the bench runs."""


@dataclass(frozen=True)
class _Setting:
    """What is measured, every default filled."""

    device: torch.device
    size: str
    height: int
    width: int
    resolved: Resolved


def run(options: BenchStep) -> None:
    """Measures, and prints the tables."""
    setting = _setting(options)
    prepare_files(options.json, options.markdown)
    load = os.getloadavg()[0]
    with _folder(setting.size) as folder:
        start_process_group(World(), timedelta(minutes=30))
        try:
            rows = _measured(setting, options.rounds, folder)
        finally:
            leave_process_group()
    about = _about(setting, options, load)
    tell(as_markdown(rows, about), as_json(rows, about), options.json, options.markdown)


def _measured(setting: _Setting, rounds: int, folder: Path) -> list[Row]:
    resolved, device = setting.resolved, setting.device
    with progress_bar() as telling:
        material = make_material(
            folder / "pictures",
            setting.height,
            setting.width,
            resolved.micro_batch_size,
            resolved.accumulation_steps,
            telling,
        )
        base = folder / "base"
        save_base(make_parts(SHAPES[setting.size], SEED, base), base)
        ways = contenders(base, material, resolved, device)
        return race(ways, rounds, resolved.global_batch_size, device, telling)


def _setting(options: BenchStep) -> _Setting:
    """Reads the options.

    Raises:
        UserError: they leave nothing to measure.
    """
    if options.rounds < 1:
        raise UserError(f"--rounds {options.rounds} measures nothing; give at least 1.")
    device = device_of(options.device, World())
    if device.type == "cpu" and torch.cuda.is_available():
        raise UserError(
            "--device cpu, but DeepSpeed takes the GPU wherever torch finds one, so ours would not run on the CPU; set "
            "CUDA_VISIBLE_DEVICES to nothing for this command."
        )
    size = options.size or ("full" if device.type == "cuda" else "tiny")
    height, width = _sides(options.resolution or RESOLUTIONS[size])
    precision: Precision = options.precision or ("bf16" if device.type == "cuda" else "no")
    flags = Train("", "", Path(), train_batch_size=options.train_batch_size, mixed_precision=precision,
                  gradient_accumulation_steps=options.gradient_accumulation_steps)  # fmt: skip
    return _Setting(device, size, height, width, resolve(STANDARD, flags, 1))


def _sides(text: str) -> tuple[int, int]:
    """Height and width of HEIGHTxWIDTH."""
    found = re.fullmatch(r"(\d+)x(\d+)", text)
    if not found:
        raise UserError(f"--resolution {text} is no HEIGHTxWIDTH, so no crop can be cut; write e.g. 512x512.")
    height, width = int(found[1]), int(found[2])
    if min(height, width) < LEAST_SIDE or height % FACTOR or width % FACTOR:
        raise UserError(
            f"--resolution {text} gives the network no whole number of latents on every level; take sides of at least "
            f"{LEAST_SIDE} pixels that are multiples of {FACTOR}."
        )
    return height, width


@contextmanager
def _folder(size: str) -> Iterator[Path]:
    """Yields a temporary folder with room for the base."""
    with tempfile.TemporaryDirectory(prefix="refiner-ds-bench-") as name:
        free, needed = shutil.disk_usage(name).free, DISK_BYTES[size]
        if free < needed:
            raise UserError(
                f"--size {size} takes {needed / 1e9:.1f} GB of disk and {name} has {free / 1e9:.1f} free, so no base "
                "can be made; set TMPDIR to a folder on another disk."
            )
        yield Path(name)


def _about(setting: _Setting, options: BenchStep, load: float) -> dict[str, Any]:
    resolved = setting.resolved
    precision = {"no": "fp32"}.get(resolved.precision, resolved.precision)
    threads = f"torch's threads {torch.get_num_threads()}; " if setting.device.type == "cpu" else ""
    what = (
        f"{threads}{setting.size} model with random weights, crops of {setting.height}x{setting.width} (HxW), "
        f"micro-batch {resolved.micro_batch_size}, accumulation {resolved.accumulation_steps}, ours in {precision} "
        f"under ZeRO-{resolved.stage} on one rank, AdamW; load average {load:.1f} before; median [min..max] over "
        f"rounds: {options.rounds}"
    )
    return {
        "command": command_of("bench step", options),
        "machine": machine_of(setting.device),
        "date": date.today().isoformat(),
        "what": what,
        "device": setting.device.type,
        "size": setting.size,
        "resolution": f"{setting.height}x{setting.width}",
        "micro_batch_size": resolved.micro_batch_size,
        "accumulation_steps": resolved.accumulation_steps,
        "precision": resolved.precision,
        "threads": torch.get_num_threads(),
        "rounds": options.rounds,
        "versions": versions(),
    }
