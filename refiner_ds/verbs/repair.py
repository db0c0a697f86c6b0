"""`refiner-ds repair`: repairs one picture, a folder or a manifest with an exported refiner, on any number of ranks."""

import os
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from PIL import Image

from refiner_ds.config.verbs.models import Repair
from refiner_ds.folders import file_made_whole
from refiner_ds.refiners.protocol import Sampling
from refiner_ds.refiners.unclip.adapter import folders_of
from refiner_ds.verbs.device import device_of, load_refiner
from refiner_ds.verbs.jobs import Job, work_of
from refiner_ds.verbs.kept import Kept, digest_of_model, is_done
from refiner_ds.verbs.progress import progress_bar
from refiner_ds.verbs.ranks import as_rank
from refiner_ds.verbs.views import check_views, read_with_references
from refiner_ds.world import World, world_from


def run(options: Repair) -> None:
    """Repairs and writes picture files; under a launcher every rank its share of them.

    Raises:
        UserError: on rank 0 for what is wrong with the command; on any rank for its own pictures.
    """
    world = world_from(os.environ)
    with as_rank(world):
        _repair_share(options, world)


def _repair_share(options: Repair, world: World) -> None:
    work = work_of(options)
    device = device_of(options.device, world)
    share = [work.jobs[i] for i in world.share(len(work.jobs))]
    with progress_bar(world.is_main) as tell:
        done = _done(share, tell) if work.folder else set()
        left = [job for job in share if job.output not in done]
        check_views([job.files for job in left], tell)
        if share:  # else there is no need of a model
            refiner, sampling = load_refiner(options, device)
            kept = Kept(work.folder, _made_by(options, sampling)) if work.folder else None
            if kept:
                kept.require_same(any_done=bool(done))
            for number, job in enumerate(left, start=1):
                picture = refiner.repair(*read_with_references(job.files), seeds=[options.seed], sampling=sampling)
                _write(kept, job, Image.fromarray(picture[0].permute(1, 2, 0).cpu().numpy()))
                tell("repairing", number, len(left))
    rank = f"rank {world.rank} of {world.size}: " if world.size > 1 else ""
    there = f", {len(done)} {'was' if len(done) == 1 else 'were'} there," if done else ""
    print(f"{rank}{len(left)} repaired{there} in {options.output}", flush=True)


def _done(jobs: Sequence[Job], tell: Callable[[str, int, int], None]) -> set[Path]:
    """Outputs that need not be made again."""
    done = set()
    for number, job in enumerate(jobs, start=1):
        if is_done(job):
            done.add(job.output)
        tell("looking for what is done", number, len(jobs))
    return done


def _made_by(options: Repair, sampling: Sampling) -> dict[str, Any]:
    """What decides the pictures, beside the files that each is made of."""
    model = digest_of_model(*folders_of(str(options.model)))
    return {"model": model, **asdict(sampling), "scheduler": options.scheduler, "seed": options.seed}


def _write(kept: Kept | None, job: Job, picture: Image.Image) -> None:
    job.output.parent.mkdir(parents=True, exist_ok=True)
    if kept:
        kept.write(job, picture)
        return
    with file_made_whole(job.output) as scratch:
        picture.save(scratch, Image.registered_extensions()[job.output.suffix.lower()])
