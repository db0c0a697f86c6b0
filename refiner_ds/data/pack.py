"""Packing: samples become WebDataset tars, picture bytes untouched or recoded, the same whatever the worker count."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Literal

import numpy as np

from refiner_ds.data.index import FILES, Dataset, Index, Shard, Skipped, read_index, write_index
from refiner_ds.data.manifest import VIEWS, Sample
from refiner_ds.data.packing.check import Finding, Findings, check_all
from refiner_ds.data.packing.crew import Crew, Tell, crew_of, tell_nobody
from refiner_ds.data.packing.plan import Plan, PlannedShard, make_plan
from refiner_ds.data.packing.recode import KEEP, Recoding
from refiner_ds.data.packing.scratch import Scratch, Writing
from refiner_ds.data.packing.write import Job, Written, write, written_before
from refiner_ds.errors import UserError

CHUNK = 8
"""Samples that a process checks at a time."""


@dataclass(frozen=True)
class Recipe:
    """What the shards depend on beside the samples and their splits.

    Attributes:
        order: "shuffled" packs training samples in an order drawn by `seed`, "list" in that of the manifest.
        shard_size: bytes of pictures after which a new shard starts; an estimate, where they are recoded.
        on_error: "stop" packs nothing while a sample cannot be used; "skip" leaves it out and says so in the index.
        recoding: what becomes of the pictures' bytes.
    """

    order: Literal["shuffled", "list"] = "shuffled"
    seed: int = 0
    shard_size: int = 512 * 1024 * 1024
    on_error: Literal["stop", "skip"] = "stop"
    recoding: Recoding = KEEP


def pack(
    samples: Sequence[Sample],
    splits: Sequence[str],
    datasets: Sequence[Dataset],
    out: Path,
    recipe: Recipe,
    workers: int,
    left_out: Sequence[Skipped] = (),
    tell: Tell = tell_nobody,
    say: Callable[[str], None] = print,
) -> Index:
    """Checks every picture, then writes train and validation shards and, last, the index; all or nothing appears.

    What is done is kept beside `out` until all of it is, so that the same call goes on where a killed one was.

    Args:
        splits: by sample, "train" or "val"; a sample that is left out moves no other one.
        datasets: which `Sample.dataset` numbers; their numbers of samples are counted here.
        left_out: samples that were left out before, for the index.
        say: told what a person should know.

    Raises:
        UserError: no training sample would be left, the folder is taken or worked on, or pictures cannot be used.
    """
    if recipe.shard_size < 1 or workers < 1:
        raise UserError(
            f"--shard_size {recipe.shard_size} and --workers {workers} must be at least 1; else nothing is written."
        )
    scratch = Scratch(out)
    scratch.require_free()
    with scratch.locked(), crew_of(workers) as crew:
        found = _found(samples, scratch, crew, tell)
        problems = {number: finding.problem for number, finding in enumerate(found) if finding.problem}
        scratch.list_problems(problems)
        if problems and recipe.on_error == "stop":
            raise UserError(_refusal(problems, len(samples), scratch.problems))
        names, checked = [dataset.name for dataset in datasets], [finding.checked for finding in found]
        plan = make_plan(samples, checked, splits, names, recipe.order, recipe.seed, recipe.shard_size, recipe.recoding)
        if not any(shard.split == "train" for shard in plan.shards):
            raise UserError(
                f"{len(problems)} of {len(samples)} samples cannot be used and no other one is there to train on; "
                f"mend what {scratch.problems} lists, or hold out fewer."
            )
        scratch.require_free(plan.digest)
        if not scratch.is_committed(plan.digest):
            writing = scratch.begin(plan.digest, say)
            written = _written(plan, samples, writing, crew, tell)
            shards = [
                Shard(shard.name, shard.split, one.bytes, one.sha256, shard.samples)
                for shard, one in zip(plan.shards, written, strict=True)
            ]
            skipped = [_skipped(number, samples[number], datasets, plan, why) for number, why in problems.items()]
            counted = _counted(datasets, plan)
            records, skipped = np.concatenate([one.records for one in written]), [*left_out, *skipped]
            codec, table = recipe.recoding.label, recipe.recoding.table
            write_index(writing.shards, shards, records, plan.lines, counted, skipped, codec=codec, buckets=table)
            writing.commit({shard.name for shard in shards} | {*FILES})
        scratch.remove()
    return read_index(out)


def _found(samples: Sequence[Sample], scratch: Scratch, crew: Crew, tell: Tell) -> list[Finding]:
    """What is found in each sample; files that an earlier run has decoded are not decoded again."""
    found: list[Finding] = []
    size = 0
    with Findings(scratch.findings) as findings:
        jobs = ([(sample, findings.of(sample)) for sample in chunk] for chunk in _chunks(samples))
        for part in crew.results(check_all, jobs):
            findings.add(samples[len(found) : len(found) + len(part)], part)
            found += part
            size += sum(sum(finding.checked.sizes) for finding in part if finding.checked)
            tell("checking", len(found), len(samples), size)
    return found


def _chunks(samples: Sequence[Sample]) -> Iterator[list[Sample]]:
    remaining = iter(samples)
    while chunk := list(islice(remaining, CHUNK)):
        yield chunk


def _refusal(problems: dict[int, str], total: int, path: Path) -> str:
    named = "; ".join(list(problems.values())[:5]) + ("; ..." if len(problems) > 5 else ".")
    return (
        f"{len(problems)} of {total} samples cannot be used, and none is skipped silently ({path} lists all): {named} "
        "Mend them, take them out of the manifest, or leave them out with --on_error skip."
    )


def _written(plan: Plan, samples: Sequence[Sample], writing: Writing, crew: Crew, tell: Tell) -> list[Written]:
    """Writes the shards that no earlier run has completed; all of them, in the plan's order."""
    found = {shard.name: written_before(_job(plan, shard, samples, writing)) for shard in plan.shards}
    done, size = 0, 0
    missing = [shard for shard in plan.shards if found[shard.name] is None]
    for kept in filter(None, found.values()):
        done, size = done + len(kept.records), size + kept.bytes
    jobs = (_job(plan, shard, samples, writing) for shard in missing)
    for shard, written in zip(missing, crew.results(write, jobs), strict=True):
        found[shard.name] = written
        done, size = done + shard.samples, size + written.bytes
        tell("writing", done, len(plan.records), size)
    return [written for written in found.values() if written]


def _job(plan: Plan, shard: PlannedShard, samples: Sequence[Sample], writing: Writing) -> Job:
    part = slice(shard.first, shard.first + shard.samples)
    files = [tuple(samples[number].files[view] for view in VIEWS) for number in plan.numbers[part]]
    path, note = writing.shards / shard.name, writing.sums / shard.name
    return Job(path, note, plan.records[part], files, plan.cards[part], plan.recoding)


def _counted(datasets: Sequence[Dataset], plan: Plan) -> list[Dataset]:
    counts = np.bincount(plan.records["dataset"], minlength=len(datasets))
    return [replace(dataset, samples=int(count)) for dataset, count in zip(datasets, counts, strict=True)]


def _skipped(number: int, sample: Sample, datasets: Sequence[Dataset], plan: Plan, reason: str) -> Skipped:
    key = f"{number:0{plan.records.dtype['key'].itemsize}d}"
    return Skipped(datasets[sample.dataset].name, key, sample.sources["render"], reason)
