"""`refiner-ds bench step`: what a training step costs on this machine, by ours, by the baseline's way and at least."""

from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import torch

from refiner_ds.bench.encoded import Shape
from refiner_ds.bench.step_material import make_material
from refiner_ds.bench.step_report import BARE, ENCODED, as_json, as_markdown
from refiner_ds.bench.step_supply import SEED, Source, of_largest_bucket, require_shape, side_of, write_both
from refiner_ds.bench.turns import Row, duel, race
from refiner_ds.config.deepspeed import Resolved, resolve
from refiner_ds.config.training import BUCKETS, Train
from refiner_ds.config.verbs.benches import BenchStep
from refiner_ds.data.buckets import parse_buckets, require_table
from refiner_ds.data.encoded_samples import training_samples
from refiner_ds.data.samples import Samples
from refiner_ds.data.shards import open_shards
from refiner_ds.errors import UserError, note
from refiner_ds.train.engine import start_process_group
from refiner_ds.train.meeting import leave_process_group
from refiner_ds.verbs.bench_model import (
    DISK_BYTES,
    SHAPES,
    Setting,
    folder_for,
    load_now,
    make_base,
    setting_of,
    shape_of,
)
from refiner_ds.verbs.bench_step_ways import contenders
from refiner_ds.verbs.measured import prepare_files, tell
from refiner_ds.verbs.plan import STANDARD
from refiner_ds.verbs.progress import progress_bar
from refiner_ds.world import World


def run(options: BenchStep) -> None:
    """Measures, and prints the tables."""
    given = _given(options)
    setting = setting_of(replace(options, resolution=f"{side_of(given)}x{side_of(given)}") if given else options)
    if setting.device.type == "cpu" and torch.cuda.is_available():
        raise UserError(
            "--device cpu, but DeepSpeed takes the GPU wherever torch finds one, so ours would not run on the CPU; set "
            "CUDA_VISIBLE_DEVICES to nothing for this command."
        )
    resolved = _resolved(options, setting)
    if given:
        _require_enough(given, resolved)
    if not setting.is_square:
        note("crops that are not square are trained on by nobody, so ours is not measured from shards")
    prepare_files(options.json, options.markdown)
    load = load_now()
    with folder_for(setting.size, DISK_BYTES[setting.size]) as folder:
        start_process_group(World(), timedelta(minutes=30))
        try:
            rows, compared = _measured(setting, resolved, options, given, folder)
        finally:
            leave_process_group()
    what = (
        f"micro-batch {resolved.micro_batch_size}, accumulation {resolved.accumulation_steps}, ours in "
        f"{setting.precision_told} under ZeRO-{resolved.stage} on one rank, AdamW"
        f"{f', shards read by {options.dataloader_num_workers} workers' if setting.is_square else ''}"
    )
    sizes = {"micro_batch_size": resolved.micro_batch_size, "accumulation_steps": resolved.accumulation_steps}
    about = setting.about("bench step", options, load, what, **sizes)
    tell(as_markdown(rows, about, compared), as_json(rows, about, compared), options.json, options.markdown)


def _given(options: BenchStep) -> Samples | None:
    """The training samples of --shards that are of the bucket that most of them are of.

    Raises:
        UserError: they cannot be trained from.
    """
    if options.dataloader_num_workers < 0:
        raise UserError(
            f"--dataloader_num_workers {options.dataloader_num_workers} is no number of processes; give 0 or more."
        )
    if options.shards is None:
        if options.buckets is not None:
            raise UserError(
                f"--buckets {options.buckets} would have no effect, as no shards are read with them; add --shards, or "
                "leave it out."
            )
        return None
    shards = open_shards(options.shards)
    made_for = shards.index.encoding.buckets if shards.index.encoding else shards.index.buckets
    buckets = parse_buckets(options.buckets or made_for or BUCKETS)
    require_table(buckets, shards.index.buckets, shards.location)
    found = of_largest_bucket(training_samples(shards, buckets, SEED))
    side = side_of(found)
    if options.resolution not in (None, f"{side}x{side}"):
        raise UserError(
            f"--resolution {options.resolution} and --shards: most of what is read there becomes crops of "
            f"{side}x{side} by --buckets; leave out --resolution, or give --buckets of that height."
        )
    return found


def _require_enough(given: Samples, resolved: Resolved) -> None:
    """Refuses a global batch that would hold a sample twice, as training does."""
    if len(given) < resolved.global_batch_size:
        raise UserError(
            f"--shards {given.shards.location} hold {len(given)} training samples of one bucket and a step takes "
            f"{resolved.global_batch_size}, so it would hold a sample twice; lower --gradient_accumulation_steps or "
            "--train_batch_size."
        )


def _measured(
    setting: Setting, resolved: Resolved, options: BenchStep, given: Samples | None, folder: Path
) -> tuple[list[Row], list[float]]:
    """What came of all ways, and on a CPU how ours from features stands to the bare loop, step by step."""
    size, batch, workers = resolved.micro_batch_size, resolved.global_batch_size, options.dataloader_num_workers

    def source(samples: Samples) -> Source:
        return Source(samples, size, batch, workers, setting.device.type == "cuda")

    def sources(shape: Shape) -> list[Source]:
        if given:
            return [source(given)]
        return [source(each) for each in write_both(material, folder, batch, shape)] if setting.is_square else []

    if given:
        require_shape(given, shape_of(SHAPES[setting.size]))
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
        rows = race(ways, options.rounds, resolved.global_batch_size, setting.device, telling)
        if setting.device.type != "cpu":  # a GPU's speed does not vary so, and its memory may not hold both
            return rows, []
        by_name = {way.name: way for way in ways}
        return rows, duel(by_name[ENCODED], by_name[BARE], options.rounds, setting.device)


def _resolved(options: BenchStep, setting: Setting) -> Resolved:
    """What training would be told.

    Raises:
        UserError: there would be no sample to train on.
    """
    flags = Train("", "", Path(), train_batch_size=options.train_batch_size, mixed_precision=setting.precision,
                  gradient_accumulation_steps=options.gradient_accumulation_steps)  # fmt: skip
    return resolve(STANDARD, flags, 1)
