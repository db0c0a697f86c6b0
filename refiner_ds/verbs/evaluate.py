"""`refiner-ds evaluate`: render and repaired against gt, as metrics.json and a report."""

import json
from collections.abc import Iterator

from refiner_ds.batch import Batch
from refiner_ds.config.verbs import Evaluate
from refiner_ds.data.index import read_index
from refiner_ds.data.manifest import VIEWS, read_manifest
from refiner_ds.data.stream import Split
from refiner_ds.errors import UserError
from refiner_ds.evaluate.pictures import sheet
from refiner_ds.evaluate.repairs import means, repair_all
from refiner_ds.evaluate.report import write_report
from refiner_ds.refiners.unclip.refiner import UnclipRefiner
from refiner_ds.tracking.journal import read_metrics
from refiner_ds.verbs.device import place
from refiner_ds.verbs.progress import progress_bar
from refiner_ds.verbs.repair import read_picture

ON_SHEET = 12
"""Samples that pictures.png is made from."""


def run(options: Evaluate) -> None:
    """Repairs all held-out samples and writes metrics.json and report.html."""
    count, batches = _samples(options)
    refiner = UnclipRefiner(str(options.model))
    place(refiner, options.device)
    sampling = refiner.sampling.but(options.num_inference_steps, options.guidance_scale)
    repaired = []
    with progress_bar() as tell:
        for sample in repair_all(refiner, batches, sampling, options.seed):
            repaired.append(sample)
            tell("evaluating", len(repaired), count)
    figures = means(repaired)
    options.output.mkdir(parents=True, exist_ok=True)
    content = json.dumps({"samples": count, **figures}, indent=1) + "\n"
    (options.output / "metrics.json").write_text(content, encoding="utf-8")
    sheet(repaired[:ON_SHEET]).save(options.output / "pictures.png")
    curve = read_metrics(options.run).get("train/loss", {}) if options.run else {}
    write_report(options.output / "report.html", repaired, figures, curve, str(options.model), sampling, options.seed)
    for name, values in figures.items():
        print(f"{name:<9} PSNR {values['psnr']:6.2f} dB   SSIM {values['ssim']:.4f}")
    print(f"{count} samples; report in {options.output / 'report.html'}")


def _samples(options: Evaluate) -> tuple[int, Iterator[Batch]]:
    """Number of held-out samples, and each as a batch of its own size."""
    if options.manifest and not options.shards:
        samples = read_manifest(options.manifest)
        return len(samples), (
            _batch({view: read_picture(s.files[view]) for view in VIEWS}, i, s.sources["render"])
            for i, s in enumerate(samples)
        )
    if options.shards and not options.manifest:
        split = Split.of(read_index(options.shards), "val", options.shards, (), options.seed)
        if not len(split):
            raise UserError(
                f"--shards {options.shards} have no validation split, so nothing is held out; pack with --val N."
            )
        return len(split), (split.native(i) for i in range(len(split)))
    raise UserError("evaluate takes either --manifest or --shards; give one of the two.")


def _batch(pictures: dict, position: int, name: str) -> Batch:
    sizes = {f"{picture.shape[-1]}x{picture.shape[-2]}" for picture in pictures.values()}
    if len(sizes) > 1:
        raise UserError(
            f"{name} and its partners differ in size ({', '.join(sorted(sizes))}); give pictures of one size."
        )
    return Batch(**pictures, positions=(position,), keys=(name,))
