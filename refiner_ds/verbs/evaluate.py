"""`refiner-ds evaluate`: render and repaired against gt, as metrics.json and a report, on any number of ranks."""

import contextlib
import csv
import json
import os
import platform
import shlex
import tempfile
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from refiner_ds.batch import Batch
from refiner_ds.config.verbs.models import Evaluate
from refiner_ds.data.manifest import Sample, read_manifest
from refiner_ds.data.samples import Samples
from refiner_ds.data.shards import open_shards
from refiner_ds.data.store.options import cache_options
from refiner_ds.data.stream import whole
from refiner_ds.errors import UserError, note
from refiner_ds.evaluate.cases import cases
from refiner_ds.evaluate.perceptual import shared_perceptual
from refiner_ds.evaluate.pictures import Album, Shown, sheet
from refiner_ds.evaluate.repairs import Judged, repair_all
from refiner_ds.evaluate.report import Training, write_report
from refiner_ds.evaluate.summary import Summary, summary
from refiner_ds.evaluate.text import lines_of
from refiner_ds.folders import require_folder
from refiner_ds.refiners.protocol import Sampling
from refiner_ds.refiners.unclip.adapter import is_adapter
from refiner_ds.tracking.journal import SETTINGS, read_metrics
from refiner_ds.tracking.shipped import read_shipped
from refiner_ds.tracking.start import nest_evaluation
from refiner_ds.verbs.device import device_of, load_refiner
from refiner_ds.verbs.progress import progress_bar
from refiner_ds.verbs.ranks import as_rank, gathering
from refiner_ds.verbs.views import check_views, read_views
from refiner_ds.world import World, world_from

ON_SHEET = 12
"""Samples that pictures.png is made from."""


@dataclass(frozen=True)
class HeldOut:
    """Held-out samples.

    Attributes:
        batches: gives those of these numbers, each as a batch of its own size.
        scenes: gives that of each, empty where unknown.
    """

    count: int
    batches: Callable[[Sequence[int]], Generator[Batch]]
    scenes: Callable[[], list[str]]


@dataclass(frozen=True)
class Evaluation:
    """What rank 0 writes about."""

    judged: list[Judged]
    found: Summary
    shown: dict[int, Shown]
    sampling: Sampling


def run(options: Evaluate) -> None:
    """Repairs all held-out samples, every rank its share; rank 0 writes metrics.json, samples.csv and report.html.

    Raises:
        UserError: on rank 0 for what is wrong with the command; on any rank for its own samples.
    """
    world = world_from(os.environ)
    with as_rank(world):
        require_folder(options.output)
        training = _training_of(options.run) if options.run and world.is_main else Training()
        evaluation = _evaluate(options, world)
    if world.is_main:
        _write(options, evaluation, training)


def _evaluate(options: Evaluate, world: World) -> Evaluation:
    device = device_of(options.device, world)
    with contextlib.ExitStack() as stack:
        tell = stack.enter_context(progress_bar(world.is_main))
        held_out = _held_out(options, world, tell)
        refiner, sampling = load_refiner(options, device)
        gathered = stack.enter_context(gathering(world))
        scenes = gathered(held_out.scenes() if world.is_main else [])[0]
        perceptual = shared_perceptual(
            device, platform.node(), gathered, lambda _, words: note(words) if world.is_main else None
        )
        album = Album(Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="refiner-ds-evaluate-"))))
        share = world.share(held_out.count)
        batches = stack.enter_context(contextlib.closing(held_out.batches(share)))
        own: list[Judged] = []
        for sample in repair_all(refiner, batches, sampling, options.seed, perceptual, scenes):
            album.keep(sample)
            own.append(sample.judged)
            tell("evaluating" if world.size == 1 else "evaluating (share of rank 0)", len(own), len(share))
        judged = sorted((each for rank in gathered(own) for each in rank), key=lambda each: each.position)
        wanted = {each.position for group in cases(judged).values() for each in group} | set(range(ON_SHEET))
        kept = gathered([album.shown(each) for each in own if each.position in wanted])
        shown = {each.judged.position: each for rank in kept for each in rank}
    return Evaluation(judged, summary(judged), shown, sampling)


def _write(options: Evaluate, evaluation: Evaluation, training: Training) -> None:
    out, found, shown = options.output, evaluation.found, evaluation.shown
    out.mkdir(parents=True, exist_ok=True)
    (out / "metrics.json").write_text(json.dumps(found.as_json(), indent=1) + "\n", encoding="utf-8")
    _write_samples(out / "samples.csv", evaluation.judged)
    sheet([shown[each.position] for each in evaluation.judged[:ON_SHEET]]).save(out / "pictures.png")
    how = f"{evaluation.sampling}, seed {options.seed}{f', {options.scheduler}' if options.scheduler else ''}"
    by_heading = {
        heading: [shown[each.position] for each in group] for heading, group in cases(evaluation.judged).items()
    }
    pipeline = not is_adapter(options.model)
    write_report(out / "report.html", found, by_heading, str(options.model), how, training, pipeline)
    print("\n".join(lines_of(found)))
    print(f"report in {out / 'report.html'}, figures in metrics.json and of each sample in samples.csv")
    shipped = read_shipped(options.run) if options.run else None
    if options.run and shipped and shipped.run_id and (fault := nest_evaluation(out, options.run)):
        again = shlex.join(["python", "-m", "refiner_ds.tracking.nested", str(out), str(options.run)])
        note(f"{fault}; all of it is in {out}, and `{again}` sends it.")


def _write_samples(path: Path, judged: Sequence[Judged]) -> None:
    """A line for each sample, with what every figure is of before its name."""
    rows: list[dict[str, Any]] = [
        {
            **{"key": each.key, "scene": each.scene, "gain_psnr": each.gain},
            **{f"render_{name}": value for name, value in each.render.items()},
            **{f"repaired_{name}": value for name, value in each.repaired.items()},
            **each.regions,
        }
        for each in judged
    ]
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(dict.fromkeys(name for row in rows for name in row)))
        writer.writeheader()
        writer.writerows(rows)


def _training_of(run: Path) -> Training:
    """What the journal and the settings of a run tell."""
    metrics = read_metrics(run)
    if "train/loss" not in metrics:
        raise UserError(
            f"--run {run} holds no metrics of a training run, so there is no loss curve to show; "
            "name its --output_dir, or leave --run out."
        )
    try:
        settings = json.loads((run / SETTINGS).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        settings = {}
    return Training(metrics, settings)


def _held_out(options: Evaluate, world: World, tell: Callable[[str, int, int], None]) -> HeldOut:
    if options.manifest and not options.shards:
        if given := options.shard_cache or options.shard_cache_limit:
            raise UserError(
                f"shard cache {given} would have no effect, as --manifest names pictures and no shards; leave it out."
            )
        return _of_manifest(read_manifest(options.manifest, with_scene=True), world, tell)
    if options.shards and not options.manifest:
        cache = cache_options(options.shards, options.shard_cache, options.shard_cache_limit)
        shards = open_shards(options.shards, cache, tell, note if world.is_main else lambda _: None)
        samples = Samples.of(shards, "val", (), options.seed)
        if not len(samples):
            raise UserError(
                f"--shards {shards.location} have no validation split, so nothing is held out; pack with --val N."
            )
        return _of_shards(samples)
    raise UserError("evaluate takes either --manifest or --shards; give one of the two.")


def _of_manifest(samples: Sequence[Sample], world: World, tell: Callable[[str, int, int], None]) -> HeldOut:
    check_views([samples[number].files for number in world.share(len(samples))], tell)

    def batches(numbers: Sequence[int]) -> Generator[Batch]:
        for number in numbers:
            key = samples[number].sources["render"]
            yield Batch(**dict[str, Any](read_views(samples[number].files)), positions=(number,), keys=(key,))

    return HeldOut(len(samples), batches, lambda: [sample.scene or "" for sample in samples])


def _of_shards(samples: Samples) -> HeldOut:
    def batches(numbers: Sequence[int]) -> Generator[Batch]:
        with contextlib.closing(samples.shards):
            samples.shards.read_ahead("val")
            yield from (whole(samples, number) for number in numbers)

    return HeldOut(len(samples), batches, lambda: samples.shards.scenes(samples.rows.tolist(), note))
