"""The plan of a run: all that is decided, checked and refused before any network or process group exists."""

import os
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from refiner_ds.checkpoint.layout import Checkpoint
from refiner_ds.config.deepspeed import Resolved, read_json, resolve
from refiner_ds.config.limits import check_limits, require_best
from refiner_ds.config.training import Train
from refiner_ds.data.buckets import parse_buckets, require_table
from refiner_ds.data.encoded_samples import training_samples
from refiner_ds.data.order import Order
from refiner_ds.data.samples import Samples
from refiner_ds.data.shards import Shards, open_shards
from refiner_ds.data.store.options import cache_options
from refiner_ds.errors import UserError, note
from refiner_ds.refiners.unclip.options import Adaptation
from refiner_ds.train.folder import LATEST, candidates, require_own
from refiner_ds.train.loop import Times
from refiner_ds.train.optimizers import require_sound
from refiner_ds.train.schedule import Schedule, make_schedule
from refiner_ds.world import World


@dataclass(frozen=True)
class Plan:
    """All that is decided before the ranks meet; equal on all of them but for `world`."""

    flags: Train
    world: World
    resolved: Resolved
    shards: Shards
    samples: Samples
    order: Order
    times: Times
    learning_rate: float
    schedule: Schedule
    checkpoint: Checkpoint | None = None
    """Where it continues, once the ranks have agreed on it."""

    @property
    def optimizer_cut(self) -> dict[str, Any]:
        """What decides how the optimizer is cut over the ranks, and so which checkpoints can be continued."""
        return _optimizer_cut(self.flags, self.resolved, self.world)

    @property
    def identity(self) -> dict[str, Any]:
        """What makes two commands the same run."""
        return _identity(self.flags, self.shards.index.digest, self.resolved)

    @property
    def names_checkpoint(self) -> bool:
        """Whether the user has named the one checkpoint to continue from."""
        return self.flags.resume_from_checkpoint != LATEST

    def candidates(self) -> list[Checkpoint]:
        """The complete checkpoints that the run may continue from, newest first, as they lie on the disk now.

        Raises:
            UserError: one belongs to another run, or its optimizer's state does not fit.
        """
        flags = self.flags
        return candidates(
            flags.output_dir,
            flags.resume_from_checkpoint,
            self.optimizer_cut,
            self.identity,
            flags.accept_other_shards,
        )

    def continued_from(self, checkpoint: Checkpoint | None) -> "Plan":
        """The same plan from a checkpoint on."""
        first = checkpoint.step if checkpoint else 0
        return replace(self, checkpoint=checkpoint, times=replace(self.times, first=first))

    @property
    def adaptation(self) -> Adaptation:
        """How the base becomes what is trained."""
        return _adaptation(self.flags)


def make_plan(flags: Train, world: World) -> Plan:
    """Reads and checks everything that can be known without a network or a process group, and the shards' index.

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
    require_sound(resolved.optimizer)
    cache = cache_options(flags.shards, flags.shard_cache, flags.shard_cache_limit)
    shards = open_shards(flags.shards, cache, tell=note if world.is_main else None)
    buckets, replaces = parse_buckets(flags.buckets), flags.max_bad_samples > 0
    require_table(buckets, shards.index.buckets, shards.location)
    samples = training_samples(shards, buckets, flags.seed, flags.random_flip, replaces, flags.resampling)
    order = samples.order(resolved.global_batch_size, flags.shuffle_window_shards, flags.lanes)
    if len(samples) < resolved.global_batch_size:
        raise UserError(
            f"shards {shards.location} hold {len(samples)} training samples and one global batch takes "
            f"{resolved.global_batch_size} (micro-batch {resolved.micro_batch_size} x accumulation "
            f"{resolved.accumulation_steps} x {world.size} ranks), so it would hold a sample twice; "
            "lower --gradient_accumulation_steps or --train_batch_size."
        )
    held_out = shards.index.rows("val").size
    require_best(flags, shards.location, held_out)
    identity = _identity(flags, shards.index.digest, resolved)
    require_own(flags.output_dir, identity, flags.accept_other_shards)
    last = order.steps_of(flags.num_train_epochs) if flags.max_train_steps is None else flags.max_train_steps
    times = Times(
        first=0,
        last=last,
        logging=flags.logging_steps,
        checkpointing=flags.checkpointing_steps,
        validation=order.steps_of(flags.validation_epochs) if held_out else 0,
    )
    peak = resolved.learning_rate * (resolved.global_batch_size if flags.scale_lr else 1)
    schedule = make_schedule(resolved.schedule, peak, times.last)
    plan = Plan(flags, world, resolved, shards, samples, order, times, peak, schedule)
    plan.candidates()  # refuses what cannot be continued
    return plan


def plan_or_mistake(flags: Train, world: World) -> tuple[Plan | None, UserError | None]:
    """The plan, or what is wrong, of which other ranks may see nothing."""
    try:
        return make_plan(flags, world), None
    except UserError as error:
        return None, error


def _identity(flags: Train, digest: str, resolved: Resolved) -> dict[str, Any]:
    base = flags.pretrained_model_name_or_path
    return {
        "shards_digest": digest,
        # one folder is one base however its path is written; export reads it here too, wherever that is started
        "pretrained_model_name_or_path": str(Path(base).resolve()) if Path(base).is_dir() else base,
        "revision": flags.revision,
        "variant": flags.variant,
        **asdict(_adaptation(flags)),
        "seed": flags.seed,
        "buckets": flags.buckets,
        "shuffle_window_shards": flags.shuffle_window_shards,
        "lanes": flags.lanes,
        "resampling": flags.resampling,
        "global_batch_size": resolved.global_batch_size,
    }


def _adaptation(flags: Train) -> Adaptation:
    return Adaptation(flags.trainable, flags.lora_rank, flags.prediction_type, flags.rescale_betas_zero_snr, flags.seed)


def _optimizer_cut(flags: Train, resolved: Resolved, world: World) -> dict[str, Any]:
    return {
        "num_ranks": world.size,
        "precision": resolved.precision,
        "stage": resolved.stage,
        "optimizer": resolved.optimizer.name,
        "use_ema": flags.use_ema,
    }
