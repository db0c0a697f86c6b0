"""`refiner-ds plan`: what a run will take and how far it will come, before anything is queued."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, get_args

import torch

from refiner_ds.config.deepspeed import BUCKET_ELEMENTS, Resolved, read_json, resolve
from refiner_ds.config.limits import check_limits, require_best
from refiner_ds.config.training import Train
from refiner_ds.config.verbs.planning import Plan
from refiner_ds.data.buckets import parse_buckets, require_crops, require_table
from refiner_ds.data.encoded_samples import training_samples
from refiner_ds.data.shards import open_shards
from refiner_ds.data.store.options import bytes_of
from refiner_ds.errors import UserError
from refiner_ds.estimate.activations import MicroBatch, measure
from refiner_ds.estimate.advice import CHOICES, Advice, Saving, advise
from refiner_ds.estimate.disk import checkpoint_bytes, checkpoints_to_come
from refiner_ds.estimate.findings import Disk, Findings, Run, as_json, columns_of, exchange_of
from refiner_ds.estimate.memory import Setup, bill
from refiner_ds.estimate.parameters import Counts, count
from refiner_ds.estimate.report import Report
from refiner_ds.estimate.setup import setup_of
from refiner_ds.estimate.time import Rate, given_rate, measured_rate
from refiner_ds.folders import require_folder
from refiner_ds.refiners.protocol import Checkpointed
from refiner_ds.refiners.unclip.options import Adaptation
from refiner_ds.refiners.unclip.outline import SIZES, Outline, outline_of_base, outline_of_shapes
from refiner_ds.train.precision import DTYPES

STANDARD: dict[str, Any] = {
    "bf16": {"enabled": "auto"},
    "fp16": {"enabled": "auto"},
    "data_types": {"grad_accum_dtype": "fp32"},
    "zero_optimization": {"stage": 2, "contiguous_gradients": True, "overlap_comm": False},
}
"""What ds_configs/zero2.json says."""
CHECKPOINTED: tuple[Checkpointed, ...] = get_args(Checkpointed)
LEAST_MEMORY = 10**9


def run(options: Plan) -> None:
    """Counts, and prints it."""
    _require_sense(options)
    if options.json and str(options.json) != "-":
        require_folder(options.json.parent)
    found = find(options)
    told = json.dumps(as_json(found), indent=1)
    if str(options.json) == "-":
        print(told)
        return
    print(Report(found).text())
    if options.json:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(told + "\n", encoding="utf-8")


def find(options: Plan) -> Findings:
    """The plan of a run; takes some seconds.

    Raises:
        UserError: what training would refuse too, as far as it can be known without its files.
    """
    flags = _flags(options)
    check_limits(flags)
    config = read_json(options.deepspeed_config) if options.deepspeed_config else STANDARD
    resolved = resolve(config, flags, options.ranks)
    rate = _rate(options)
    memory = _memory(options.gpu_memory)
    run = _run(options, resolved)
    outline = _outline(options)
    counts, setup = count(outline), setup_of(resolved, options.ranks, options.use_ema)
    batches = {blocks: _batches(options, resolved, outline, blocks) for blocks in CHECKPOINTED}
    yours = batches[flags.checkpointed]
    kept = options.checkpoints_total_limit, run.steps, options.checkpointing_steps
    keeps = checkpoints_to_come(*kept, options.keep_best, options.keep_every)
    return Findings(
        base=options.pretrained_model_name_or_path or f"a base of --size {options.size}",
        precision=resolved.precision,
        ranks=options.ranks,
        counts=counts,
        batches=batches,
        checkpointed=flags.checkpointed,
        columns=columns_of(counts, setup, yours[0]),
        run=run,
        disk=Disk(checkpoint_bytes(counts.trained, options.use_ema, setup.moment_bytes), keeps),
        exchange=exchange_of(counts, setup),
        link_gigabits=options.link_gigabits,
        rate=rate,
        memory=memory,
        advice=_advice(counts, resolved, setup, batches, flags.checkpointed, memory) if memory else None,
    )


def _require_sense(options: Plan) -> None:
    if (options.pretrained_model_name_or_path is None) == (options.size is None):
        raise UserError(
            "nothing or two things say which shapes to count; give --pretrained_model_name_or_path or --size, one of "
            "them."
        )
    if options.ranks < 1:
        raise UserError(
            f"--ranks {options.ranks} leaves nobody to train; give the number of GPUs of the job, 1 or more."
        )
    if options.link_gigabits is not None and not 0 < options.link_gigabits < float("inf"):
        raise UserError(
            f"--link_gigabits {options.link_gigabits:g} is no rate that anything could be sent at; give gigabits per "
            "second, such as 25."
        )
    if options.pairs_per_second is not None and options.rate_from is not None:
        raise UserError(
            "--pairs_per_second and --rate_from both say how fast a rank is, and only one can hold; leave one out."
        )


def _flags(options: Plan) -> Train:
    """The flags of the run that is planned."""
    return Train(
        shards=options.shards or "",
        pretrained_model_name_or_path=options.pretrained_model_name_or_path or "",
        output_dir=Path(),
        train_batch_size=options.train_batch_size,
        gradient_accumulation_steps=options.gradient_accumulation_steps,
        mixed_precision=options.mixed_precision,
        gradient_checkpointing=options.gradient_checkpointing,
        checkpointed_blocks=options.checkpointed_blocks,
        use_8bit_adam=options.use_8bit_adam,
        lora_rank=options.lora_rank,
        num_train_epochs=options.num_train_epochs,
        max_train_steps=options.max_train_steps,
        checkpointing_steps=options.checkpointing_steps,
        checkpoints_total_limit=options.checkpoints_total_limit,
        keep_best=options.keep_best,
        keep_every=options.keep_every,
    )


def _rate(options: Plan) -> Rate | None:
    if options.rate_from is not None:
        return measured_rate(options.rate_from)
    return None if options.pairs_per_second is None else given_rate(options.pairs_per_second)


def _memory(said: str | None) -> int | None:
    """Bytes of a device: as said, else of the GPU here, if there is one."""
    if said is None:
        return torch.cuda.get_device_properties(0).total_memory if torch.cuda.is_available() else None
    memory = bytes_of("--gpu_memory", said)
    if memory < LEAST_MEMORY:
        raise UserError(f"--gpu_memory {said} is less than any GPU has; give one with its unit, such as 80GB.")
    return memory


def _run(options: Plan, resolved: Resolved) -> Run:
    """How far the run goes, from the shards' index where they are given."""
    steps, epochs, samples = options.max_train_steps, None, None
    batch = resolved.global_batch_size
    if options.shards:
        shards, buckets = open_shards(options.shards), parse_buckets(options.buckets)
        require_table(buckets, shards.index.buckets, shards.location)
        require_best(_flags(options), shards.location, shards.index.rows("val").size)
        train = training_samples(shards, buckets, seed=0)
        samples = len(train)
        if samples < batch:
            raise UserError(
                f"shards {shards.location} hold {samples} training samples and one global batch takes {batch}, so it "
                "would hold a sample twice; lower --gradient_accumulation_steps, --train_batch_size or --ranks."
            )
        order = train.order(batch)
        steps = order.steps_of(options.num_train_epochs) if steps is None else steps
        epochs = steps * batch / order.due.total
    return Run(resolved.micro_batch_size, resolved.accumulation_steps, batch, steps, epochs, samples)


def _outline(options: Plan) -> Outline:
    adaptation = Adaptation(options.trainable, options.lora_rank)
    if options.size is not None:
        return outline_of_shapes(SIZES[options.size], adaptation)
    base = options.pretrained_model_name_or_path or ""
    return outline_of_base(base, options.revision, options.variant, adaptation)


def _batches(options: Plan, resolved: Resolved, outline: Outline, blocks: Checkpointed) -> tuple[MicroBatch, ...]:
    """One micro-batch of every bucket, the largest crop first."""
    buckets = parse_buckets(options.buckets)
    require_crops(buckets, outline.crop_factor)
    crops = sorted({bucket.height for bucket in buckets}, reverse=True)
    dtype = DTYPES[resolved.precision]
    return tuple(measure(outline, dtype, crop, resolved.micro_batch_size, blocks) for crop in crops)


def _advice(
    counts: Counts,
    resolved: Resolved,
    setup: Setup,
    batches: Mapping[Checkpointed, tuple[MicroBatch, ...]],
    checkpointed: Checkpointed,
    memory: int,
) -> Advice:
    """What to take, by the largest crop; blocks that are computed twice stay so, and more of them may become so."""

    def needs(blocks: Checkpointed) -> dict[str, int]:
        return {
            choice.file: bill(counts, choice.applied_to(setup, BUCKET_ELEMENTS), batches[blocks][0]).total
            for choice in CHOICES
            if choice.precision == resolved.precision
        }

    more = CHECKPOINTED[CHECKPOINTED.index(checkpointed) + 1 :]
    savings = [
        Saving(blocks, batches[blocks][0].flops / batches[checkpointed][0].flops, needs(blocks)) for blocks in more
    ]
    return advise(needs(checkpointed), memory, resolved.precision, setup.ranks, resolved.accumulation_steps, savings)
