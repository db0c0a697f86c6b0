"""The guide's manifest: a JSON object with aligned lists of paths, one list a view."""

from collections.abc import Sequence
from pathlib import Path

from refiner_ds.data.manifest.sample import Sample, sample_at
from refiner_ds.errors import UserError

SCENE = "scene"
"""The optional list that names each sample's scene."""


def samples_of_lists(path: Path, content: object, views: Sequence[str], with_scene: bool = False) -> list[Sample]:
    """One sample for each index of the lists `views`; other keys do not matter.

    Args:
        content: the JSON of the file `path`.
        with_scene: read the list `scene` too, where there is one.

    Raises:
        UserError: a list is missing or holds something else, the lists have different lengths, or are empty.
    """
    lists = {view: _list_of(path, content, view, views) for view in views}
    if with_scene and isinstance(content, dict) and SCENE in content:
        lists[SCENE] = _scenes_of(path, content[SCENE])
    lengths = {name: len(entries) for name, entries in lists.items()}
    if len(set(lengths.values())) > 1:
        counts = ", ".join(f"{name} {count}" for name, count in lengths.items())
        raise UserError(
            f"manifest {path}: the lists have different lengths ({counts}), so entries of equal index do not belong "
            "together; make them equally long and aligned."
        )
    if not lists[views[0]]:
        raise UserError(f"manifest {path}: its lists are empty, so there is nothing to read; list at least one sample.")
    scenes = lists.get(SCENE, [None] * lengths[views[0]])
    return [
        sample_at(path.parent, {view: lists[view][i] for view in views}, scene or None)
        for i, scene in enumerate(scenes)
    ]


def _list_of(path: Path, content: object, view: str, views: Sequence[str]) -> list:
    entries = content.get(view) if isinstance(content, dict) else None
    if not isinstance(entries, list) or not all(isinstance(entry, str) for entry in entries):
        raise UserError(
            f"manifest {path}: '{view}' is no list of paths, so samples cannot be formed; "
            f"write an object with the aligned lists {', '.join(views)}."
        )
    return entries


def _scenes_of(path: Path, entries: object) -> list:
    if not isinstance(entries, list) or not all(entry is None or isinstance(entry, str) for entry in entries):
        raise UserError(
            f"manifest {path}: 'scene' is no list of names, so samples cannot be held out by scene; "
            "write one text (or null) for each sample, or take the key out."
        )
    return entries
