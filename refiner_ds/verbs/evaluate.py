"""`refiner-ds evaluate`: render and repaired against gt, as metrics.json and a report."""

import contextlib
import json
from collections.abc import Callable, Iterator
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
from refiner_ds.evaluate.pictures import sheet
from refiner_ds.evaluate.repairs import means, repair_all
from refiner_ds.evaluate.report import write_report
from refiner_ds.folders import require_folder
from refiner_ds.tracking.journal import read_metrics
from refiner_ds.verbs.device import device_of, load_refiner
from refiner_ds.verbs.progress import progress_bar
from refiner_ds.verbs.views import check_views, read_views
from refiner_ds.world import World

ON_SHEET = 12
"""Samples that pictures.png is made from."""


def run(options: Evaluate) -> None:
    """Repairs all held-out samples and writes metrics.json and report.html."""
    require_folder(options.output)
    curve = _curve(options.run) if options.run else {}
    device, repaired = device_of(options.device, World()), []
    with progress_bar() as tell:
        count, batches = _samples(options, tell)
        refiner, sampling = load_refiner(options, device)
        for sample in repair_all(refiner, batches, sampling, options.seed):
            repaired.append(sample)
            tell("evaluating", len(repaired), count)
    figures = means(repaired)
    options.output.mkdir(parents=True, exist_ok=True)
    content = json.dumps({"samples": count, **figures}, indent=1) + "\n"
    (options.output / "metrics.json").write_text(content, encoding="utf-8")
    sheet(repaired[:ON_SHEET]).save(options.output / "pictures.png")
    how = f"{sampling}, seed {options.seed}{f', {options.scheduler}' if options.scheduler else ''}"
    write_report(options.output / "report.html", repaired, figures, curve, str(options.model), how)
    for name, values in figures.items():
        print(f"{name:<9} PSNR {values['psnr']:6.2f} dB   SSIM {values['ssim']:.4f}")
    print(f"{count} samples; report in {options.output / 'report.html'}")


def _curve(run: Path) -> dict[int, float]:
    """The training loss by step."""
    if curve := read_metrics(run).get("train/loss"):
        return curve
    raise UserError(
        f"--run {run} holds no metrics of a training run, so there is no loss curve to show; "
        "name its --output_dir, or leave --run out."
    )


def _samples(options: Evaluate, tell: Callable[[str, int, int], None]) -> tuple[int, Iterator[Batch]]:
    """Number of held-out samples, and each as a batch of its own size."""
    if options.manifest and not options.shards:
        if given := options.shard_cache or options.shard_cache_limit:
            raise UserError(
                f"shard cache {given} would have no effect, as --manifest names pictures and no shards; leave it out."
            )
        samples = read_manifest(options.manifest)
        check_views([sample.files for sample in samples], tell)
        return len(samples), (
            Batch(**_views(sample), positions=(i,), keys=(sample.sources["render"],))
            for i, sample in enumerate(samples)
        )
    if options.shards and not options.manifest:
        cache = cache_options(options.shards, options.shard_cache, options.shard_cache_limit)
        shards = open_shards(options.shards, cache, tell, note)
        held_out = Samples.of(shards, "val", (), options.seed)
        if not len(held_out):
            raise UserError(
                f"--shards {shards.location} have no validation split, so nothing is held out; pack with --val N."
            )
        return len(held_out), _held_out(held_out)
    raise UserError("evaluate takes either --manifest or --shards; give one of the two.")


def _held_out(samples: Samples) -> Iterator[Batch]:
    with contextlib.closing(samples.shards):
        samples.shards.read_ahead("val")
        yield from (whole(samples, number) for number in range(len(samples)))


def _views(sample: Sample) -> dict[str, Any]:
    """(1, 3, H, W) uint8 by view."""
    return dict(read_views(sample.files))
