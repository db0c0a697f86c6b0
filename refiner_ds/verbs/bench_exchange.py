"""`refiner-ds bench exchange`: what two ranks send each other in an optimizer step, and how long they wait for it."""

import tempfile
from contextlib import nullcontext
from datetime import date
from pathlib import Path
from typing import Any

import torch

from refiner_ds.bench.cable import cable, loopback
from refiner_ds.bench.exchange import COALESCED, STAGE_2, WHOLE, race
from refiner_ds.bench.exchange_report import as_json, as_markdown
from refiner_ds.bench.process import RunFailed
from refiner_ds.config.deepspeed import BUCKET_ELEMENTS
from refiner_ds.config.verbs.benches import BenchExchange
from refiner_ds.errors import Failure, UserError
from refiner_ds.estimate.traffic import traffic
from refiner_ds.refiners.unclip.base import TINY
from refiner_ds.verbs.bench_model import load_now, make_base
from refiner_ds.verbs.measured import command_of, machine_of, prepare_files, tell
from refiner_ds.verbs.progress import progress_bar
from refiner_ds.versions import versions

RANKS, SIDE = 2, 64


def run(options: BenchExchange) -> None:
    """Measures, and prints the table."""
    for name in ("rounds", "steps", "gradient_accumulation_steps"):
        if getattr(options, name) < 1:
            raise UserError(f"--{name} {getattr(options, name)} measures nothing; give at least 1.")
    if options.reduce_bucket_size is not None and options.reduce_bucket_size < 1:
        raise UserError(f"--reduce_bucket_size {options.reduce_bucket_size} holds no gradient; give at least 1.")
    if options.link is not None and options.link < 1:
        raise UserError(f"--link {options.link} lets nothing pass; give whole megabits per second, such as 100.")
    prepare_files(options.json, options.markdown)
    load = load_now()
    with tempfile.TemporaryDirectory(prefix="refiner-ds-bench-") as name:
        folder = Path(name)
        job = {
            "base": str(make_base(TINY, folder)),
            "precision": options.precision,
            "accumulation": options.gradient_accumulation_steps,
            "micro_batch": 1,
            "side": SIDE,
            "steps": options.steps,
            "bucket": options.reduce_bucket_size or "auto",
        }
        link = cable(options.link) if options.link else nullcontext(loopback(RANKS))
        with link as hosts, progress_bar() as telling:
            try:
                found = race(job, hosts, options.rounds, folder, telling)
            except RunFailed as error:
                raise Failure(f"the ranks of the bench failed: {error}") from error
    trained = found[WHOLE][0].trained
    counted = _on_paper(trained, options)
    about = _about(options, trained, load)
    tell(as_markdown(found, counted, about), as_json(found, counted, about), options.json, options.markdown)


def _on_paper(trained: int, options: BenchExchange) -> dict[str, float]:
    """Bytes that each rank sends in a step by way: what `plan` counts, as gloo sends it.

    gloo makes its reduce-scatter of an all-reduce, which sends twice as much as NCCL's ring.
    """
    size = 4 if options.precision == "no" else 2
    counted = {}
    for way, stage, accumulation in (
        (WHOLE, 1, options.gradient_accumulation_steps),
        (STAGE_2, 2, options.gradient_accumulation_steps),
        (COALESCED, 2, 1),
    ):
        found = traffic(trained, RANKS, stage, accumulation, size)
        counted[way] = (2 * found.reduced + found.gathered) * (RANKS - 1) / RANKS
    return counted


def _about(options: BenchExchange, trained: int, load: float) -> dict[str, Any]:
    precision = {"no": "fp32"}.get(options.precision, options.precision)
    link = f"a cable of {options.link} Mb/s in each direction" if options.link else "loopback"
    bucket = options.reduce_bucket_size
    buckets = f", buckets of {bucket:,} gradients" if bucket else ""
    what = (
        f"{RANKS} ranks of one thread over {link} (gloo), tiny model with {trained:,} weights in {precision}, crops of "
        f"{SIDE}x{SIDE}, micro-batch 1, accumulation {options.gradient_accumulation_steps}{buckets}, from encoded "
        f"features; load average {load:.1f} before; median [min..max] over rounds: {options.rounds}, each of "
        f"{options.steps} steps"
    )
    return {
        "command": command_of("bench exchange", options),
        "machine": machine_of(torch.device("cpu")),
        "date": date.today().isoformat(),
        "what": what,
        "ranks": RANKS,
        "link_megabits": options.link,
        "precision": options.precision,
        "accumulation_steps": options.gradient_accumulation_steps,
        "reduce_bucket_size": options.reduce_bucket_size or BUCKET_ELEMENTS,
        "trained": trained,
        "versions": versions(),
    }
