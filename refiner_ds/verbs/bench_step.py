"""`refiner-ds bench step`: what a training step costs on this machine, by ours, by the baseline's way and at least."""

from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path

import torch

from refiner_ds.bench.encoded import Shape
from refiner_ds.bench.step_material import make_material
from refiner_ds.bench.step_report import as_json, as_markdown
from refiner_ds.bench.step_supply import SEED, Source, side_of, write_both
from refiner_ds.bench.turns import Row, race
from refiner_ds.config.deepspeed import Resolved, resolve
from refiner_ds.config.training import Train
from refiner_ds.config.verbs.benches import BenchStep
from refiner_ds.data.buckets import Bucket, parse_buckets, require_table
from refiner_ds.data.encoded_samples import training_samples
from refiner_ds.data.shards import Shards, open_shards
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
    given, resolution = _given(options)
    setting = setting_of(replace(options, resolution=resolution))
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
            rows = _measured(setting, resolved, options, given, folder)
        finally:
            leave_process_group()
    what = (
        f"micro-batch {resolved.micro_batch_size}, accumulation {resolved.accumulation_steps}, ours in "
        f"{setting.precision_told} under ZeRO-{resolved.stage} on one rank, AdamW, shards read by "
        f"{options.dataloader_num_workers} workers"
    )
    sizes = {"micro_batch_size": resolved.micro_batch_size, "accumulation_steps": resolved.accumulation_steps}
    about = setting.about("bench step", options, load, what, **sizes)
    tell(as_markdown(rows, about), as_json(rows, about), options.json, options.markdown)


@dataclass(frozen=True)
class _Given:
    """Shards of the user's, and the buckets that they are read with."""

    shards: Shards
    buckets: tuple[Bucket, ...]


def _given(options: BenchStep) -> tuple[_Given | None, str | None]:
    """The shards that --shards names, and the crops' size, which is then that of their buckets.

    Raises:
        UserError: they cannot be read, or their crops are of another size than --resolution.
    """
    if options.dataloader_num_workers < 0:
        raise UserError(
            f"--dataloader_num_workers {options.dataloader_num_workers} is no number of processes; give 0 or more."
        )
    if options.shards is None:
        return None, options.resolution
    shards, buckets = open_shards(options.shards), parse_buckets(options.buckets)
    require_table(buckets, shards.index.buckets, shards.location)
    training_samples(shards, buckets, SEED)
    side = side_of(buckets)
    if options.resolution not in (None, f"{side}x{side}"):
        raise UserError(
            f"--resolution {options.resolution} and --shards: what is read there becomes crops of {side}x{side} by "
            "--buckets; leave out --resolution, or give --buckets of that height."
        )
    return _Given(shards, buckets), f"{side}x{side}"


def _measured(
    setting: Setting, resolved: Resolved, options: BenchStep, given: _Given | None, folder: Path
) -> list[Row]:
    size, batch, workers = resolved.micro_batch_size, resolved.global_batch_size, options.dataloader_num_workers

    def source(shards: Shards, buckets: tuple[Bucket, ...]) -> Source:
        return Source(shards, buckets, size, batch, workers, setting.device.type == "cuda")

    def sources(shape: Shape) -> list[Source]:
        if given:
            made = [source(given.shards, given.buckets)]
        elif setting.height == setting.width:
            made = [source(shards, (material.bucket,)) for shards in write_both(material, folder, batch, shape)]
        else:
            made = []  # training cuts squares alone
        for each in made:
            each.require_shape(shape)
        return made

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
        ways = contenders(base, material, resolved, setting.device, options.compile, sources)
        return race(ways, options.rounds, resolved.global_batch_size, setting.device, telling)


def _resolved(options: BenchStep, setting: Setting) -> Resolved:
    """What training would be told.

    Raises:
        UserError: there would be no sample to train on.
    """
    flags = Train("", "", Path(), train_batch_size=options.train_batch_size, mixed_precision=setting.precision,
                  gradient_accumulation_steps=options.gradient_accumulation_steps)  # fmt: skip
    return resolve(STANDARD, flags, 1)
