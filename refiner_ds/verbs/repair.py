"""`refiner-ds repair`: repairs one picture, or all of a manifest, with an exported refiner."""

from pathlib import Path

from PIL import Image

from refiner_ds.config.verbs import Repair
from refiner_ds.data.images import EXTENSIONS
from refiner_ds.data.manifest import read_manifest
from refiner_ds.errors import UserError
from refiner_ds.folders import require_folder
from refiner_ds.refiners.unclip.refiner import UnclipRefiner
from refiner_ds.verbs.device import place
from refiner_ds.verbs.progress import progress_bar
from refiner_ds.verbs.views import check_views, read_views

_Job = tuple[dict[str, Path], Path]
"""Files by view, and the picture to write."""


def run(options: Repair) -> None:
    """Repairs and writes picture files."""
    jobs = _jobs(options)
    with progress_bar() as tell:
        check_views([files for files, _ in jobs], tell)
        refiner = UnclipRefiner(str(options.model))
        sampling = refiner.sampling.but(options.num_inference_steps, options.guidance_scale)
        place(refiner, options.device)
        for number, (files, output) in enumerate(jobs, start=1):
            picture = refiner.repair(**read_views(files), seeds=[options.seed], sampling=sampling)
            output.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(picture[0].permute(1, 2, 0).cpu().numpy()).save(output)
            tell("repairing", number, len(jobs))
    print(f"{len(jobs)} repaired in {options.output}")


def _jobs(options: Repair) -> list[_Job]:
    """Every picture to repair."""
    if options.manifest and not (options.render or options.cond):
        return _manifest_jobs(options.manifest, options.output)
    if options.render and options.cond and not options.manifest:
        return [({"render": options.render, "cond": options.cond}, _picture_path(options.output, options.render))]
    raise UserError("repair takes either --render and --cond, or --manifest; give one of the two.")


def _manifest_jobs(manifest: Path, folder: Path) -> list[_Job]:
    samples = read_manifest(manifest, ("render", "cond"))
    require_folder(folder)
    outputs = [folder / Path(sample.sources["render"]).with_suffix(".png").name for sample in samples]
    if len(set(outputs)) < len(outputs):
        raise UserError(
            f"--manifest {manifest} has renders of equal file name, so one repair would overwrite another; "
            "split the manifest or rename the files."
        )
    return [(sample.files, output) for sample, output in zip(samples, outputs, strict=True)]


def _picture_path(output: Path, render: Path) -> Path:
    """Where one picture goes: --output itself, or in it under the render's name where it is a folder."""
    if output.is_dir():
        output = output / f"{render.stem}.png"
    if Image.registered_extensions().get(output.suffix.lower()) not in EXTENSIONS:
        raise UserError(
            f"--output {output} does not end as a picture does, so its format is unknown; end it in .png, .jpg or "
            ".webp, or name a folder that exists."
        )
    require_folder(output.parent)
    return output
