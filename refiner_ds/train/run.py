"""Wiring of a training run: from the command line's values to a loop, and the marker that says it is done."""

import os
import platform
import subprocess
import time
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path

import torch

from refiner_ds.checkpoint.layout import name_of
from refiner_ds.checkpoint.place import Place, find_place
from refiner_ds.checkpoint.state import SavedState
from refiner_ds.config.training import Train
from refiner_ds.data.buckets import require_crops
from refiner_ds.data.stream import Stream
from refiner_ds.errors import PREEMPTED, Failure, UserError, note
from refiner_ds.evaluate.perceptual import PERCEPTUAL, Perceptual, shared_perceptual
from refiner_ds.folders import require_folder
from refiner_ds.refiners.protocol import Sampling
from refiner_ds.refiners.unclip.options import Recipe
from refiner_ds.refiners.unclip.refiner import UnclipRefiner
from refiner_ds.state import StateFile
from refiner_ds.supervise.ending import MISTAKE
from refiner_ds.supervise.link import Link
from refiner_ds.tracking.journal import Journal, read_metrics
from refiner_ds.tracking.start import LOG, start_shipper
from refiner_ds.train.about import name_of_device, say_header, settings_of, whereabouts
from refiner_ds.train.best import best_metric, best_steps
from refiner_ds.train.best_export import require_shared
from refiner_ds.train.console import Console
from refiner_ds.train.engine import Engine, start_process_group
from refiner_ds.train.folder import write_settings
from refiner_ds.train.hooks import RunHooks
from refiner_ds.train.lock import Lock
from refiner_ds.train.loop import train
from refiner_ds.train.meeting import (
    MISTAKE_LIMIT,
    SharedMistake,
    is_loss_of_peer,
    leave_process_group,
)
from refiner_ds.train.plan import Plan, plan_or_mistake
from refiner_ds.train.precision import allow_tf32
from refiner_ds.train.ready import continued, meet, require_base, require_encoding
from refiner_ds.train.resume import changes
from refiner_ds.train.side import SideChannel
from refiner_ds.train.stopping import Stopping, end_of_job
from refiner_ds.train.system import Sampler
from refiner_ds.world import World, world_from

SHIPPING_SECONDS, HURRIED_SECONDS = 30.0, 5.0
"""How long the end of a run waits for the tracking process, which goes on by itself after that; the second where it was
asked to stop."""


def run(flags: Train) -> int:
    """Trains, and returns the exit code; under a launcher every rank runs this, below its warden.

    Raises:
        UserError: on rank 0 for what is wrong with the command, before anything is written; on any rank for a sample
            that cannot be read.
        Failure: the ranks could not meet.
    """
    world, link, state = world_from(os.environ), Link(), StateFile(flags.output_dir)
    try:
        return _run(flags, world, link, state)
    except UserError as error:
        state.fail(str(error), MISTAKE)
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
    except Failure as error:
        state.fail(str(error), 1)
        link.has_told()
        raise
    except BaseException as error:
        state.fail(f"{type(error).__name__}: {error}", 1)
        if is_loss_of_peer(error):
            link.lost_peer()
        raise
    finally:
        if world.size == 1:  # with others, who fails otherwise leaves by ending, and does not wait for them
            leave_process_group()


def _run(flags: Train, world: World, link: Link, state: StateFile) -> int:
    plan, mistake = plan_or_mistake(flags, world)
    timeout = timedelta(minutes=flags.timeout_minutes) if plan else MISTAKE_LIMIT
    device = start_process_group(world, timeout, mistake)
    assert plan, "its mistake has ended all ranks"
    meet(plan, link, timeout)
    stopping = Stopping(end_of_job(os.environ) - flags.save_before_end if flags.save_before_end is not None else None)
    side = SideChannel(timeout)
    require_folder(flags.output_dir)
    lock = Lock(flags.output_dir, note) if world.is_main else None
    if lock:
        state.begin(plan.times.last)
    link.keep_log(flags.output_dir)
    place = find_place(flags.output_dir, world, side.gathered)
    if flags.export_best:
        require_shared(place, world)
    plan = continued(plan, place, side)
    encodes = not plan.shards.index.encoding or bool(plan.times.validation)
    refiner = UnclipRefiner(
        flags.pretrained_model_name_or_path, flags.revision, flags.variant, plan.adaptation, has_encoders=encodes
    )
    sampling = refiner.sampling(flags.validation_steps, flags.validation_guidance_scale)
    perceptual = _perceptual(plan, device, side) if plan.times.validation else []
    require_base(plan, refiner)
    require_crops(plan.samples.buckets, refiner.crop_factor)
    require_encoding(plan, refiner)
    if not encodes:
        refiner.leave_out_encoders()
    code = _train(plan, refiner, sampling, perceptual, device, side, place, stopping, lock, state)
    if world.size > 1:
        leave_process_group()
    return code


def _train(
    plan: Plan,
    refiner: UnclipRefiner,
    sampling: Sampling,
    perceptual: Sequence[Perceptual],
    device: torch.device,
    side: SideChannel,
    place: Place,
    stopping: Stopping,
    lock: Lock | None,
    state: StateFile,
) -> int:
    """All that a run does once its ranks have met and its folder is its own; returns the exit code."""
    flags, world = plan.flags, plan.world
    allow_tf32(flags.allow_tf32)
    decay = (flags.ema_decay or 0.9999) if flags.use_ema else None
    engine = Engine(refiner.network, plan.resolved, device, decay, flags.compile)
    refiner.place(device, engine.dtype)
    refiner.prepare_training(_recipe(flags), flags.checkpointed)
    if plan.checkpoint:
        engine.restore(SavedState(plan.checkpoint.path))

    hosts = side.gathered((platform.node(), name_of_device(device)))
    console = Console(world.is_main, plan.times.first, plan.times.last, flags.log_json)
    journal, shipper = None, None
    if world.is_main:
        write_settings(flags.output_dir, {**settings_of(plan), "whereabouts": whereabouts(hosts)})
        state.reach(plan.times.first, is_first=True)
        journal = Journal(flags.output_dir)
        shipper = start_shipper(flags.output_dir, flags.tracking_uri, flags.experiment)
    say_header(console, plan, hosts, engine.num_trained, state.before)
    if plan.checkpoint:
        for change in changes(plan.checkpoint.commit["settings"], settings_of(plan)):
            console.say(f"note: {change}")
    hooks = RunHooks(plan, refiner, engine, sampling, side, place, stopping, console, journal, state, perceptual)
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
    stopping.watch()
    try:
        hooks.validate_what_was_missed()
        accumulation = plan.resolved.accumulation_steps
        sampler = Sampler(device, world.local_rank, flags.output_dir)
        done = train(refiner, engine, stream, plan.schedule, plan.times, accumulation, flags.seed, hooks, sampler)
        if lock:
            lock.announce_end()
        hooks.end(done)
    except BaseException:
        plan.shards.call_off()
        raise
    finally:
        console.stop()
    plan.shards.close()
    is_finished = done == plan.times.last or plan.times.first >= plan.times.last
    side.close()
    engine.barrier()
    engine.close()
    hooks.finish_exports(is_finished)
    if journal and (lost := journal.close()):
        console.say(f"warning: the disk of {flags.output_dir} had no room for the last {lost} lines of metrics.jsonl")
    if world.is_main:  # once all is written: who follows the run stops there
        _say_end(plan, done, is_finished, stopping.cause, console, state)
    if shipper:
        _wait_for(shipper, SHIPPING_SECONDS if is_finished else HURRIED_SECONDS, flags.output_dir, console)
    return 0 if is_finished else PREEMPTED


def _say_end(plan: Plan, done: int, is_finished: bool, cause: str, console: Console, state: StateFile) -> None:
    """Leaves the marker of the end, and says where things are."""
    folder = plan.flags.output_dir
    last = folder / name_of(max(plan.times.first, done))
    if is_finished:
        state.finish(plan.times.last)
        console.say(f"finished: {last}{_validated(folder)}, figures in {folder}/metrics.jsonl")
    else:
        cause = cause or "another rank"
        state.preempt(done, cause)
        console.say(f"stopped by {cause} after step {done}: {last} is complete, and the same command continues")


def _validated(folder: Path) -> str:
    """The best validation in words, where there was one."""
    metric = best_metric(folder)
    found = read_metrics(folder).get(metric, {})
    best = best_steps(found, metric)
    return f", best validation at step {best[0]} ({metric} {found[best[0]]:.4g})" if best else ""


def _perceptual(plan: Plan, device: torch.device, side: SideChannel) -> list[Perceptual]:
    """The metrics by trained networks that validation can have; what it lacks is told. All ranks call.

    Raises:
        UserError: the best checkpoint is to be told by one that it lacks.
    """
    lacks: dict[str, list[str]] = {name: [] for name in PERCEPTUAL}
    found = shared_perceptual(device, platform.node(), side.gathered, lambda name, words: lacks[name].append(words))
    wanted = plan.flags.best_metric
    if lacking := lacks.get(wanted):
        raise UserError(
            f"--best_metric {wanted} cannot be computed, so no checkpoint would be the best: {'; '.join(lacking)}, or "
            "take psnr, ssim or worse_share."
        )
    if plan.world.is_main:
        for words in (words for told in lacks.values() for words in told):
            note(words)
    return found


def _recipe(flags: Train) -> Recipe:
    return Recipe(
        flags.condition_dropout_prob,
        flags.source_loss_weight,
        flags.snr_gamma,
        flags.noise_offset,
        flags.input_perturbation,
    )


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


def _wait_for(shipper: subprocess.Popen, seconds: float, folder: Path, console: Console) -> None:
    try:
        shipper.wait(seconds)
    except subprocess.TimeoutExpired:
        console.say(f"tracking is still being sent by process {shipper.pid}; see {folder / LOG}")
