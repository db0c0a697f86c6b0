"""What `repair` is asked to do: each render with its references, and the picture to write. Opens no picture."""

import os
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from refiner_ds.config.verbs.models import Repair
from refiner_ds.data.images import EXTENSIONS
from refiner_ds.data.manifest import read_manifest
from refiner_ds.errors import UserError
from refiner_ds.folders import require_folder


@dataclass(frozen=True)
class Job:
    """One render, its references and the picture to write."""

    render: Path
    references: tuple[Path, ...]
    output: Path

    @property
    def files(self) -> dict[str, Path]:
        """Files by view: render, and cond or cond 1, cond 2, ..."""
        numbers = [""] if len(self.references) == 1 else [f" {i + 1}" for i in range(len(self.references))]
        return {"render": self.render, **{f"cond{n}": path for n, path in zip(numbers, self.references, strict=True)}}


@dataclass(frozen=True)
class Work:
    """All that a command asks for; `folder` is where the pictures of more than one render are kept."""

    jobs: list[Job]
    folder: Path | None


def work_of(options: Repair) -> Work:
    """Every picture to repair, in an order that is the same on all ranks.

    Raises:
        UserError: the options name no pictures, or renders without references, or outputs that would overwrite each
            other or what they are made of.
    """
    render, cond, output = options.render, options.cond, options.output
    if options.manifest and not (render or cond):
        work = Work(_manifest_jobs(options.manifest, output), output)
    elif render and cond and not options.manifest:
        if _are_folders(render, cond):
            work = Work(_folder_jobs(render, cond[0], output), output)
        else:
            work = Work([Job(render, cond, _picture_path(output, render))], None)
    else:
        raise UserError("repair takes either --render and --cond, or --manifest; give one of the two.")
    _require_own_outputs(work.jobs)
    require_folder(work.folder or work.jobs[0].output.parent)
    return work


def _are_folders(render: Path, cond: Sequence[Path]) -> bool:
    """True for a folder with a folder, False for a picture with pictures."""
    for path in cond:
        if path.is_dir() != render.is_dir():
            one, other = ("--render", "--cond") if render.is_dir() else ("--cond", "--render")
            folder, no_folder = (render, path) if render.is_dir() else (path, render)
            raise UserError(
                f"{one} {folder} is a folder and {other} {no_folder} is none, so they do not belong together; "
                "name two folders, or a picture and its references."
            )
    if render.is_dir() and len(cond) > 1:
        raise UserError(
            f"--render {render} is a folder and --cond names {len(cond)} folders, but each of its pictures takes one "
            "reference, of its own relative path; name one folder, or repair picture by picture."
        )
    return render.is_dir()


def _folder_jobs(renders: Path, references: Path, output: Path) -> list[Job]:
    if output.resolve().is_relative_to(renders.resolve()):
        raise UserError(
            f"--output {output} lies in --render {renders}, so repairs would be taken for renders the next time; "
            "name a folder outside."
        )
    names = sorted(_pictures_in(renders))
    if not names:
        raise UserError(
            f"--render {renders} holds no pictures (.png, .jpg or .webp), so there is nothing to repair; "
            "name the folder that has them."
        )
    partners = _partners(names, references)
    alone = [name for name in names if name not in partners]
    if alone:
        named = ", ".join(map(str, alone[:3])) + (", ..." if len(alone) > 3 else "")
        raise UserError(
            f"--cond {references} has no reference for {len(alone)} of the {len(names)} renders ({named}); give it a "
            "picture of the same relative path for each, whose extension may differ."
        )
    return [Job(renders / name, (references / partners[name],), (output / name).with_suffix(".png")) for name in names]


def _pictures_in(folder: Path) -> Iterator[Path]:
    """Relative paths of all picture files but the hidden ones, which are some system's own."""
    for path in folder.rglob("*"):
        name = path.relative_to(folder)
        if _is_picture_name(name) and not any(part.startswith(".") for part in name.parts) and path.is_file():
            yield name


def _partners(names: Sequence[Path], folder: Path) -> dict[Path, Path]:
    """The relative path of each picture's partner that is there: of its name, else of its name but the extension."""
    exact = set(_pictures_in(folder))
    by_stem: dict[Path, list[Path]] = {}
    for name in sorted(exact):
        by_stem.setdefault(name.with_suffix(""), []).append(name)
    partners = {}
    for name in names:
        fitting = [name] if name in exact else by_stem.get(name.with_suffix(""), [])
        if len(fitting) > 1:
            raise UserError(
                f"--cond {folder} has {' and '.join(map(str, fitting))}, so the reference of render {name} is not "
                "certain; keep one of them."
            )
        if fitting:
            partners[name] = fitting[0]
    return partners


def _manifest_jobs(manifest: Path, output: Path) -> list[Job]:
    samples = [sample.files for sample in read_manifest(manifest, ("render", "cond"))]
    renders = [Path(os.path.abspath(files["render"])) for files in samples]
    folder = os.path.commonpath([render.parent for render in renders])
    outputs = [(output / render.relative_to(folder)).with_suffix(".png") for render in renders]
    return [Job(files["render"], (files["cond"],), path) for files, path in zip(samples, outputs, strict=True)]


def _picture_path(output: Path, render: Path) -> Path:
    """Where one picture goes: --output itself, or in it under the render's name where it is a folder."""
    if output.is_dir():
        return output / f"{render.stem}.png"
    if not _is_picture_name(output):
        raise UserError(
            f"--output {output} does not end as a picture does, so its format is unknown; end it in .png, .jpg or "
            ".webp, or name a folder that exists."
        )
    return output


def _is_picture_name(path: Path) -> bool:
    return Image.registered_extensions().get(path.suffix.lower()) in EXTENSIONS


def _require_own_outputs(jobs: Sequence[Job]) -> None:
    output, count = Counter(job.output for job in jobs).most_common(1)[0]
    if count > 1:
        first, second = [job.render for job in jobs if job.output == output][:2]
        renders = f"renders {first} and {second}" if first != second else f"render {first} is listed twice, and both"
        raise UserError(
            f"{renders} would be repaired into {output}, so one repair would overwrite another; rename a render, or "
            "give one of them a command and an --output of its own."
        )
    given = {os.path.realpath(path) for job in jobs for path in job.files.values()}
    for job in jobs:
        if os.path.realpath(job.output) in given:
            raise UserError(
                f"{job.output} is one of the pictures that repairs are made of, and would be overwritten; "
                "name another --output."
            )
