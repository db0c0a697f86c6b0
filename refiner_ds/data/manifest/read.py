"""Reads a manifest of any form into samples, and says what is wrong with it."""

import json
import os
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from refiner_ds.data.manifest.checks import Skip, complete, distinct, existing
from refiner_ds.data.manifest.difix import KEYS, is_difix, samples_of_difix
from refiner_ds.data.manifest.lists import samples_of_lists
from refiner_ds.data.manifest.sample import VIEWS, Sample, named
from refiner_ds.data.manifest.scenes import parse_pattern, with_scenes
from refiner_ds.data.manifest.sources import Source
from refiner_ds.data.manifest.table import is_table, samples_of_table
from refiner_ds.data.manifest.tree import samples_of_folder
from refiner_ds.errors import UserError


def read_manifest(path: Path, views: Sequence[str] = VIEWS, with_scene: bool = False) -> list[Sample]:
    """Reads the aligned lists `views` of a JSON manifest; relative paths start at the manifest's folder.

    Args:
        with_scene: read the list `scene` too, where there is one.

    Raises:
        UserError: no JSON, a list missing, lists of different lengths, empty lists, or files that do not exist
            (all are counted, the first few named).
    """
    text = _text_of(path, f"a JSON file with the lists {', '.join(views)}")
    samples = samples_of_lists(path, _json_of(path, text, views), views, with_scene)
    return existing(path, samples, path.parent)


def read_dataset(
    path: Path, views: Sequence[str] = VIEWS, scene_pattern: str | None = None, skip: Skip | None = None
) -> list[Sample]:
    """Reads a manifest of any form: aligned lists or Difix's JSON, a CSV, or a folder with one folder a view.

    Args:
        views: what each sample needs; `render` is one of them.
        scene_pattern: a regular expression whose one group, found in the render's path as written, is the scene, where
            the file does not give one; for a folder it takes the place of the folders' names.
        skip: told of each sample that lacks a view or repeats a render, which is then left out. Files that do not
            exist are left to whoever opens them: what is on a disk today decides neither numbers nor splits.

    Raises:
        UserError: the manifest or the pattern is malformed, none of its samples can be used, or, without `skip`,
            samples lack a view or repeat a render, or files do not exist (all are counted, the first few named).
    """
    pattern = parse_pattern(scene_pattern) if scene_pattern is not None else None
    base = path if path.is_dir() else path.parent
    listed, spelling = _listed(path, views)
    if pattern and path.is_dir():
        listed = [replace(sample, scene=None) for sample in listed]
    samples = complete(path, listed, spelling, skip)
    samples = distinct(path, samples, skip)
    samples = samples if skip else existing(path, samples, base)
    if not samples:
        raise UserError(
            f"manifest {path}: none of its {len(listed)} samples can be used, so nothing is left; mend the paths, "
            f"which start at {base}/ where they are relative."
        )
    return with_scenes(path, samples, pattern) if pattern else samples


def read_datasets(
    sources: Sequence[Source],
    views: Sequence[str] = VIEWS,
    scene_pattern: str | None = None,
    skip: Callable[[int, str, str], None] | None = None,
) -> list[Sample]:
    """Reads several manifests one after the other; `Sample.dataset` is the number of the source.

    Args:
        views, scene_pattern: as in `read_dataset`.
        skip: told (number of the source, render as written, reason).

    Raises:
        UserError: as `read_dataset`, or sources share a render.
    """
    samples = []
    for number, source in enumerate(sources):
        tell = (lambda name, why, number=number: skip(number, name, why)) if skip else None
        read = read_dataset(source.path, views, scene_pattern, tell)
        samples += [replace(sample, dataset=number) for sample in read] if number else read
    _require_apart(sources, samples)
    return samples


def _listed(path: Path, views: Sequence[str]) -> tuple[list[Sample], dict[str, str]]:
    """The samples as the manifest lists them, and what it calls each view."""
    if path.is_dir():
        return samples_of_folder(path, views), {view: f"{view}/" for view in views}
    folders = ", ".join(f"{view}/" for view in views)
    text = _text_of(path, f"a JSON or CSV file that lists {', '.join(views)}, or a folder with {folders}")
    if is_table(path, text, views):
        return samples_of_table(path, text, views), {view: view for view in views}
    content = _json_of(path, text, views)
    if isinstance(content, dict) and is_difix(content):
        return samples_of_difix(path, content, views), {view: KEYS[view] for view in views}
    return samples_of_lists(path, content, views, with_scene=True), {view: view for view in views}


def _text_of(path: Path, wanted: str) -> str:
    """The text of a file; of one that is no text, nothing, which no reader takes."""
    try:
        return path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise UserError(f"manifest {path} cannot be read ({error.strerror}); name {wanted}.") from error
    except UnicodeDecodeError as error:
        raise UserError(f"manifest {path} is not JSON ({error}); name {wanted}.") from error


def _json_of(path: Path, text: str, views: Sequence[str]) -> object:
    try:
        return json.loads(text, object_pairs_hook=_object_of)
    except (ValueError, RecursionError) as error:
        raise UserError(
            f"manifest {path} is not JSON ({error}); write an object with lists {', '.join(views)}."
        ) from error


def _object_of(pairs: list[tuple[str, object]]) -> dict[str, object]:
    """Refuses a key that stands twice, of which Python would keep the last without a word."""
    content = dict(pairs)
    if len(content) < len(pairs):
        twice, _ = Counter(key for key, _ in pairs).most_common(1)[0]
        raise ValueError(f"the key '{twice}' stands twice in one object")
    return content


def _require_apart(sources: Sequence[Source], samples: Sequence[Sample]) -> None:
    """Refuses renders that two sources share: one could be trained on and the other held out."""
    owner: dict[str, int] = {}
    pairs = [(owner.setdefault(os.path.abspath(s.files["render"]), s.dataset), s) for s in samples]
    shared = [(first, sample) for first, sample in pairs if first != sample.dataset]
    if shared:
        first, sample = shared[0]
        raise UserError(
            f"manifests {sources[first].path} and {sources[sample.dataset].path} share renders ({len(shared)} in all: "
            f"{named([s.name for _, s in shared])}), so one of a pair may be trained on and the other held out; "
            "list each render in one manifest."
        )
