"""What a run says of itself: the header of its output, and the settings that lie beside it."""

import dataclasses
from collections import Counter
from collections.abc import Sequence
from typing import Any

import torch

from refiner_ds import __version__
from refiner_ds.estimate.advice import SEVERAL
from refiner_ds.estimate.traffic import traffic
from refiner_ds.state import State
from refiner_ds.tracking.journal import read_lines
from refiner_ds.tracking.pace import pace_of
from refiner_ds.train.console import Console
from refiner_ds.train.plan import Plan
from refiner_ds.units import time_text
from refiner_ds.versions import git_commit, versions

BY_NODE = (
    *("shards", "pretrained_model_name_or_path", "deepspeed_config"),  # what they hold is compared instead
    *("shard_cache", "shard_cache_limit", "dataloader_num_workers"),
)
"""Flags that may differ from node to node."""


def settings_of(plan: Plan) -> dict[str, Any]:
    """The resolved configuration: what was asked for, what came of it, and with which versions."""
    train_settings = {name: value for name, value in dataclasses.asdict(plan.flags).items() if name != "tracking_uri"}
    train_settings["shards"] = plan.shards.location  # without credentials
    return {
        "identity": plan.identity,
        "train": train_settings,
        "deepspeed": plan.resolved.json,
        "optimizer": dataclasses.asdict(plan.resolved.optimizer),
        "schedule": dataclasses.asdict(plan.resolved.schedule.over(plan.times.last)),
        "steps": plan.times.last,
        "num_ranks": plan.world.size,
        "learning_rate": plan.learning_rate,
        "data": _data(plan),
        "versions": versions(),
    }


def _data(plan: Plan) -> dict[str, Any]:
    """The card of the shards: how many samples of which datasets, and how they are stored."""
    index = plan.shards.index
    return {
        "training_samples": len(plan.samples),
        "held_out_samples": len(index.rows("val")),
        "datasets": {dataset.name: dataset.samples for dataset in index.datasets},
        "codec": index.codec,
        "made_by": index.made_by,
    }


def whereabouts(hosts: Sequence[tuple[str, str]]) -> dict[str, Any]:
    """Where a run is, from host and device of each rank; and the commit that its code is of, where git knows it."""
    told = {"hosts": ", ".join(dict.fromkeys(host for host, _ in hosts)), "devices": _devices(hosts)}
    return told | ({"commit": commit} if (commit := git_commit()) else {})


def common_settings(plan: Plan) -> dict[str, Any]:
    """What must be the same on all ranks beside the identity of the run, by name."""
    settings = settings_of(plan)
    sections = ("optimizer", "schedule", "deepspeed")
    return {
        **{name: settings[name] for name in ("learning_rate", "num_ranks")},
        **{f"{section}.{name}": value for section in sections for name, value in settings[section].items()},
        **{f"--{name}": value for name, value in settings["train"].items() if name not in BY_NODE},
    }


def _devices(hosts: Sequence[tuple[str, str]]) -> str:
    return ", ".join(f"{count} x {device}" for device, count in Counter(device for _, device in hosts).items())


def name_of_device(device: torch.device) -> str:
    """What a device calls itself."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU"


def say_header(
    console: Console, plan: Plan, hosts: Sequence[tuple[str, str]], trained: int, before: State | None
) -> None:
    """Where, how, on what and how long the run trains so many weights, where it is kept, and what is worth a note.

    Args:
        hosts: host and device of each rank.
        before: what the start before has left, where this is rank 0.
    """
    if not plan.world.is_main:
        return
    resolved, times = plan.resolved, plan.times
    console.header(f"refiner_ds {__version__}, {plan.flags.output_dir}", _rows(plan, hosts, trained, before))
    if resolved.stage == 2 and resolved.accumulation_steps >= SEVERAL and plan.world.size > 1:
        size = 4 if resolved.precision == "no" else 2
        two, one = (traffic(trained, plan.world.size, stage, resolved.accumulation_steps, size) for stage in (2, 1))
        console.say(
            f"note: at {resolved.accumulation_steps} accumulation steps each rank sends {two.sent / 1e9:.3g} GB a step "
            f"under ZeRO-2 and {one.sent / 1e9:.3g} GB under ZeRO-1; see ds_configs/zero1_bf16.json"
        )
    for bucket, count in plan.order.samples_by_bucket.items():
        if count < resolved.global_batch_size:
            console.say(
                f"note: bucket {plan.samples.buckets[bucket]} has {count} samples, fewer than a global batch; its "
                "batches repeat samples"
            )
    if plan.checkpoint:
        is_done = times.first >= times.last
        console.say(f"{'nothing left to train after' if is_done else 'continuing from'} {plan.checkpoint.path}")


def _rows(plan: Plan, hosts: Sequence[tuple[str, str]], trained: int, before: State | None) -> dict[str, str]:
    """The lines of the header by what each is about."""
    flags, resolved, times, index = plan.flags, plan.resolved, plan.times, plan.shards.index
    count = len({host for host, _ in hosts})
    precision = "fp32" if resolved.precision == "no" else resolved.precision
    left = times.last - times.first
    pace = pace_of(read_lines(flags.output_dir), before.started) if before else None
    hours = f", about {time_text(pace.seconds * left)} at its pace so far" if pace and pace.seconds and left else ""
    every = f"every {times.checkpointing:,} steps" if times.checkpointing else "at the end"
    epochs = times.last * resolved.global_batch_size / plan.order.due.total
    validation = f"validation every {times.validation:,}" if times.validation else "no validation"
    what = "latents of pictures" if index.encoding else "pictures"
    return {
        "hardware": f"{_devices(hosts)}{f' on {count} hosts' if count > 1 else ''}, ZeRO-{resolved.stage}, {precision}",
        "batch": f"global batch {resolved.global_batch_size} = {resolved.micro_batch_size} x "
        f"{resolved.accumulation_steps} accumulated x {plan.world.size} ranks",
        "data": f"{len(plan.samples):,} training samples ({what}), {len(index.rows('val')):,} held out, in "
        f"{plan.shards.location}",
        "steps": f"{times.first:,} to {times.last:,}, {epochs:.3g} epochs{hours}",
        "weights": f"{trained / 1e6:,.1f} M trained, learning rate {plan.learning_rate:.3g}",
        "keeps": f"a checkpoint {every}, {validation}; metrics.jsonl and logs/ in {flags.output_dir}",
    }
