"""Wiring of a training run: from the command line's values to a loop, and the marker that says it is done."""

import os
import platform
import subprocess
import time
from datetime import timedelta
from pathlib import Path

import torch

from refiner_ds.checkpoint import store
from refiner_ds.checkpoint.layout import name_of
from refiner_ds.config.training import Train
from refiner_ds.data.buckets import Bucket
from refiner_ds.data.samples import Samples
from refiner_ds.data.stream import Stream
from refiner_ds.errors import Failure, UserError
from refiner_ds.evaluate.validation import validate
from refiner_ds.folders import require_folder
from refiner_ds.refiners.protocol import Sampling
from refiner_ds.refiners.unclip.options import Recipe
from refiner_ds.refiners.unclip.refiner import UnclipRefiner
from refiner_ds.supervise.ending import MISTAKE
from refiner_ds.supervise.link import Link
from refiner_ds.tracking.journal import Journal
from refiner_ds.tracking.start import LOG, start_shipper
from refiner_ds.train.about import common_settings, say_header, settings_of
from refiner_ds.train.console import Console
from refiner_ds.train.engine import Engine, allow_tf32, start_process_group
from refiner_ds.train.folder import hold, write_finished, write_settings
from refiner_ds.train.loop import Hooks, train
from refiner_ds.train.meeting import (
    MISTAKE_LIMIT,
    SharedMistake,
    gathered,
    is_loss_of_peer,
    leave_process_group,
    require_agreement,
)
from refiner_ds.train.plan import Plan, plan_or_mistake
from refiner_ds.versions import versions
from refiner_ds.world import World, world_from

BASE = "base_fingerprint"
"""In a commit: tells the base that was trained."""

SHIPPING_SECONDS = 30.0
"""How long the end of a run waits for the tracking process, which goes on by itself after that."""


def run(flags: Train) -> None:
    """Trains; under a launcher every rank runs this, below its warden.

    Raises:
        UserError: on rank 0 for what is wrong with the command, before anything is written; on any rank for a sample
            that cannot be read.
        Failure: the ranks could not meet.
    """
    world, link = world_from(os.environ), Link()
    try:
        _run(flags, world, link)
    except UserError as error:
        # all are told alike, so none waits for another; gloo's threads would abort if they saw the interpreter end
        leave_process_group()
        link.has_told()
        if world.is_main:
            raise
        # a mistake of the command is rank 0's to tell, and launchers end all ranks at the first that ends
        time.sleep(3)
        if isinstance(error, SharedMistake):
            if world.local_rank:
                raise SystemExit(MISTAKE) from error  # told once on each node
            raise
        raise UserError(f"rank {world.rank} on {platform.node()}: {error}") from error
    except Failure:
        link.has_told()
        raise
    except BaseException as error:
        if is_loss_of_peer(error):
            link.lost_peer()
        raise
    finally:
        if world.size == 1:  # with others, who fails otherwise leaves by ending, and does not wait for them
            leave_process_group()


def _run(flags: Train, world: World, link: Link) -> None:
    plan, mistake = plan_or_mistake(flags, world)
    timeout = timedelta(minutes=flags.timeout_minutes) if plan else MISTAKE_LIMIT
    device = start_process_group(world, timeout, mistake)
    assert plan, "its mistake has ended all ranks"
    _meet(plan, link, timeout)
    refiner = UnclipRefiner(flags.pretrained_model_name_or_path, flags.revision, flags.variant, plan.adaptation)
    sampling = refiner.sampling(flags.validation_steps, flags.validation_guidance_scale)
    _require_base(plan, refiner)
    _require_crops(plan.samples.buckets, refiner.crop_factor)
    require_folder(flags.output_dir)
    if world.is_main:
        hold(flags.output_dir)
    link.keep_log(flags.output_dir)
    require_agreement({"base": refiner.base_fingerprint}, "put the same base where all nodes see it.")
    _train(plan, refiner, sampling, device)
    if world.size > 1:
        leave_process_group()


def _meet(plan: Plan, link: Link, timeout: timedelta) -> None:
    """Lets the wardens know each other, and ends ranks that were started differently before any model is loaded."""
    hub, host = gathered((link.hub, platform.node()))[0]
    link.join(hub, host, timeout.total_seconds())
    require_agreement(versions(), "install the same versions on all hosts.")
    require_agreement(
        {**plan.identity, "steps": f"{plan.times.first} to {plan.times.last}"},
        "put shards, base and output folder where all nodes see them, and start all with one command.",
    )
    require_agreement(common_settings(plan), "start all with one command.")


def _require_base(plan: Plan, refiner: UnclipRefiner) -> None:
    if plan.checkpoint and plan.checkpoint.commit.get(BASE, refiner.base_fingerprint) != refiner.base_fingerprint:
        raise UserError(
            f"{plan.checkpoint.path} was trained from other weights than --pretrained_model_name_or_path "
            f"{plan.flags.pretrained_model_name_or_path} has now; put the base back as it was, or name its --revision."
        )


def _require_crops(buckets: tuple[Bucket, ...], factor: int) -> None:
    for bucket in buckets:
        if bucket.height % factor:
            raise UserError(
                f"--buckets {bucket}: crops of {bucket.height} pixels are no whole number of latents of {factor} "
                f"pixels; take a height that is a multiple of {factor}."
            )


def _train(plan: Plan, refiner: UnclipRefiner, sampling: Sampling, device: torch.device) -> None:
    """All that a run does once its ranks have met and its folder is its own."""
    flags, world = plan.flags, plan.world
    allow_tf32(flags.allow_tf32)
    engine = Engine(refiner.network, plan.resolved, device, (flags.ema_decay or 0.9999) if flags.use_ema else None)
    refiner.place(device, engine.dtype)
    refiner.prepare_training(_recipe(flags), flags.gradient_checkpointing)
    if plan.checkpoint:
        engine.load(plan.checkpoint.path.parent, plan.checkpoint.path.name)

    console = Console(world.is_main, plan.times.first, plan.times.last)
    journal, shipper = None, None
    if world.is_main:
        write_settings(flags.output_dir, settings_of(plan))
        journal = Journal(flags.output_dir)
        shipper = start_shipper(flags.output_dir, flags.tracking_uri, flags.experiment)
    say_header(console, plan, device)
    hooks = _hooks(plan, refiner, engine, sampling, console, journal)
    _plan_reading(plan)
    stream = Stream(
        plan.samples,
        plan.order,
        plan.resolved.micro_batch_size,
        world.rank,
        world.size,
        flags.dataloader_num_workers,
        device.type == "cuda",
    )
    console.start()
    try:
        train(refiner, engine, stream, plan.schedule, plan.times, plan.resolved.accumulation_steps, flags.seed, hooks)
    except BaseException:
        plan.shards.call_off()
        raise
    finally:
        console.stop()
    plan.shards.close()
    engine.barrier()
    if world.is_main:
        write_finished(flags.output_dir, plan.times.last)
        last = name_of(max(plan.times.first, plan.times.last))
        console.say(f"finished: {flags.output_dir / last}, figures in {flags.output_dir}/metrics.jsonl")
    engine.close()
    if shipper:
        _wait_for(shipper, flags.output_dir, console)


def _recipe(flags: Train) -> Recipe:
    return Recipe(
        flags.condition_dropout_prob,
        flags.source_loss_weight,
        flags.snr_gamma,
        flags.noise_offset,
        flags.input_perturbation,
    )


def _hooks(
    plan: Plan, refiner: UnclipRefiner, engine: Engine, sampling: Sampling, console: Console, journal: Journal | None
) -> Hooks:
    flags, world = plan.flags, plan.world
    facts = {
        **plan.identity,
        **plan.optimizer_cut,
        BASE: refiner.base_fingerprint,
    }
    held_out = Samples.of(plan.shards, "val", plan.samples.buckets, flags.seed)

    def log(step: int, metrics: dict[str, float]) -> None:
        console.step(step, metrics)
        if journal:
            journal.metrics(step, metrics)

    def save(step: int) -> None:
        store.save(engine, world, flags.output_dir, step, facts, flags.checkpoints_total_limit, console.say)

    def check(step: int) -> None:
        folder = flags.output_dir / "validation" / f"step-{step:08d}"
        with engine.averaged():
            metrics, pictures = validate(
                refiner, held_out, world, sampling, flags.seed, engine.sum_over_ranks, engine.device, folder
            )
        console.say(
            f"validation at step {step}: repaired {metrics['val/psnr']:.2f} dB, SSIM {metrics['val/ssim']:.4f} "
            f"(render {metrics['val/render_psnr']:.2f} dB, {metrics['val/render_ssim']:.4f}) on {len(held_out)} samples"
        )
        if journal:
            journal.metrics(step, metrics)
            for picture in pictures:
                journal.picture(step, str(picture.relative_to(flags.output_dir)))

    def replaced(new: list[str], count: int) -> None:
        for sentence in new:
            console.say(f"replaced: {sentence}")
        if count > flags.max_bad_samples:
            raise UserError(
                f"{count} broken samples are more than --max_bad_samples {flags.max_bad_samples}, the newest: "
                f"{' '.join(new)} Mend the shards, or allow more."
            )

    return Hooks(plan.shards.reach, log, save, check, replaced)


def _plan_reading(plan: Plan) -> None:
    """What this node reads when, told to the cache of shards that lie elsewhere. All ranks call."""
    ranks = plan.world.ranks_of_node
    first, last = (plan.order.places_of(rank, plan.world.size) for rank in (ranks[0], ranks[-1]))
    plan.shards.plan(
        plan.order,
        range(plan.times.first, plan.times.last),
        range(first.start, last.stop),
        run=str(plan.flags.output_dir.resolve()),
        leads=plan.world.local_rank == 0,
    )


def _wait_for(shipper: subprocess.Popen, folder: Path, console: Console) -> None:
    try:
        shipper.wait(SHIPPING_SECONDS)
    except subprocess.TimeoutExpired:
        console.say(f"tracking is still being sent by process {shipper.pid}; see {folder / LOG}")
