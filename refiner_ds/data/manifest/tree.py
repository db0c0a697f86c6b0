"""A folder as a manifest: render/, gt/ and cond/ with equal names below them."""

import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath

from refiner_ds.data.manifest.sample import Sample, sample_at
from refiner_ds.errors import UserError


def samples_of_folder(folder: Path, views: Sequence[str]) -> list[Sample]:
    """One sample for each path below the views' folders, whose extension may differ from view to view.

    Samples come in natural order (frame 10 after frame 9). The scene is the path's own folder, such as drive/camera,
    where it has one. Hidden files are some system's own; every other file counts, whatever it is called, and a view
    that has no file of a path is left out of its sample.

    Raises:
        UserError: a view has no folder, there are no files, two files of a view differ in their extension alone, or a
            folder can be reached twice through links.
    """
    missing = [f"{view}/" for view in views if not (folder / view).is_dir()]
    if missing:
        raise UserError(
            f"manifest {folder} is a folder without {' and '.join(missing)}, so samples cannot be formed; name a JSON "
            f"or CSV file, or a folder that has {', '.join(f'{view}/' for view in views)}."
        )
    names = {view: _names_of(folder, view) for view in views}
    stems = sorted(set().union(*names.values()), key=_natural)
    if not stems:
        raise UserError(f"manifest {folder}: its folders are empty, so there is nothing to read; fill them.")
    return [
        sample_at(folder, {view: names[view][stem] for view in views if stem in names[view]}, _scene_of(stem))
        for stem in stems
    ]


def _names_of(folder: Path, view: str) -> dict[str, str]:
    """Paths from `folder` on, by their path below the view's folder without its extension."""
    found: dict[str, str] = {}
    for name in sorted(_files_below(folder / view)):
        stem = str(PurePosixPath(name).with_suffix(""))
        if stem in found:
            raise UserError(
                f"manifest {folder}: {found[stem]} and {view}/{name} differ in their extension alone, so which belongs "
                "to the sample is not certain; keep one of them."
            )
        found[stem] = f"{view}/{name}"
    return found


def _files_below(folder: Path) -> Iterator[str]:
    """Relative paths of all files but hidden ones, through links too, as drives often lie on several disks."""

    def fail(error: OSError) -> None:
        raise UserError(
            f"manifest folder {error.filename} cannot be read ({error.strerror}), so its samples would be lost; "
            "make it readable."
        )

    seen: dict[str, str] = {}
    for top, folders, files in os.walk(folder, followlinks=True, onerror=fail):
        real = os.path.realpath(top)
        if real in seen:
            raise UserError(
                f"manifest folder {top} is {seen[real]} once more, through a link, so samples would count twice; "
                "take the link away."
            )
        seen[real] = top
        folders[:] = [name for name in folders if not name.startswith(".")]
        yield from (os.path.relpath(os.path.join(top, name), folder) for name in files if not name.startswith("."))


def _natural(name: str) -> tuple[list[str | int], str]:
    """Sorts runs of digits by their number."""
    return [int(part) if part.isdecimal() else part for part in re.split(r"(\d+)", name)], name


def _scene_of(stem: str) -> str | None:
    parent = str(PurePosixPath(stem).parent)
    return None if parent == "." else parent
