"""The plan of a run: all that is decided, checked and refused before any network or process group exists."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from refiner_ds.checkpoint.layout import Checkpoint
from refiner_ds.config.deepspeed import Resolved, read_json, resolve
from refiner_ds.config.limits import check_limits
from refiner_ds.config.verbs import Train
from refiner_ds.data.images import parse_buckets
from refiner_ds.data.index import Index, read_index
from refiner_ds.data.order import Order
from refiner_ds.data.stream import Split
from refiner_ds.errors import UserError
from refiner_ds.train.folder import checkpoint_to_resume, require_own
from refiner_ds.train.loop import Times
from refiner_ds.world import World


@dataclass(frozen=True)
class Plan:
    """All that is decided before any network is touched; equal on all ranks but for `world`."""

    flags: Train
    world: World
    resolved: Resolved
    index: Index
    split: Split
    order: Order
    times: Times
    checkpoint: Checkpoint | None
    learning_rate: float

    @property
    def shards(self) -> dict[str, Any]:
        """What decides how the optimizer is cut over the ranks, and so which checkpoints can be continued."""
        return _shards(self.resolved, self.world)

    @property
    def identity(self) -> dict[str, Any]:
        """What makes two commands the same run."""
        return _identity(self.flags, self.index, self.resolved)


def make_plan(flags: Train, world: World) -> Plan:
    """Reads and checks everything that can be known without a network or a process group.

    Raises:
        UserError: whatever is wrong with configuration, shards or output folder.
    """
    path = flags.deepspeed_config or os.environ.get("ACCELERATE_DEEPSPEED_CONFIG_FILE")
    if not path:
        raise UserError(
            "--deepspeed_config is missing, so nothing says precision and sharding; name one of ds_configs/*.json."
        )
    check_limits(flags)
    resolved = resolve(read_json(Path(path)), flags, world.size)
    index = read_index(flags.shards)
    split = Split.of(index, "train", flags.shards, parse_buckets(flags.buckets), flags.seed)
    order = Order(split.bucket_of_sample(), resolved.global_batch_size, flags.seed)
    if len(split) < resolved.global_batch_size:
        raise UserError(
            f"shards {flags.shards} hold {len(split)} training samples and one global batch takes "
            f"{resolved.global_batch_size} (micro-batch {resolved.micro_batch_size} x accumulation "
            f"{resolved.accumulation_steps} x {world.size} ranks), so it would hold a sample twice; "
            "lower --gradient_accumulation_steps or --train_batch_size."
        )
    identity = _identity(flags, index, resolved)
    require_own(flags.output_dir, identity)
    checkpoint = checkpoint_to_resume(
        flags.output_dir, flags.resume_from_checkpoint, _shards(resolved, world), identity
    )
    last = order.steps_of(flags.num_train_epochs) if flags.max_train_steps is None else flags.max_train_steps
    times = Times(
        first=checkpoint.step if checkpoint else 0,
        last=last,
        logging=flags.logging_steps,
        checkpointing=flags.checkpointing_steps,
        validation=order.steps_of(flags.validation_epochs) if index.samples("val") else 0,
    )
    scale = resolved.global_batch_size if flags.scale_lr else 1
    return Plan(flags, world, resolved, index, split, order, times, checkpoint, flags.learning_rate * scale)


def _identity(flags: Train, index: Index, resolved: Resolved) -> dict[str, Any]:
    base = flags.pretrained_model_name_or_path
    return {
        "shards_digest": index.digest,
        # one folder is one base however its path is written; export reads it here too, wherever that is started
        "pretrained_model_name_or_path": str(Path(base).resolve()) if Path(base).is_dir() else base,
        "seed": flags.seed,
        "buckets": flags.buckets,
        "global_batch_size": resolved.global_batch_size,
    }


def _shards(resolved: Resolved, world: World) -> dict[str, Any]:
    return {"num_ranks": world.size, "precision": resolved.precision, "stage": resolved.stage}
