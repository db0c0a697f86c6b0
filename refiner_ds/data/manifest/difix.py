"""Difix's manifest: a JSON object with `train` and `test`, each an object of id -> pictures and prompt."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from refiner_ds.data.manifest.sample import Sample, named, sample_at
from refiner_ds.errors import UserError

KEYS = {"render": "image", "gt": "target_image", "cond": "ref_image"}
"""What Difix calls our views."""
SPLITS = {"train": "train", "test": "val"}
"""What our splits are called there: whatever is not trained on is held out."""


def is_difix(content: object) -> bool:
    """True for an object whose `train` or `test` is an object."""
    return isinstance(content, dict) and any(isinstance(content.get(part), dict) for part in SPLITS)


def samples_of_difix(path: Path, content: dict, views: Sequence[str]) -> list[Sample]:
    """All entries, in the file's order, `train` before `test`; prompts are not read.

    A view that an entry does not name is left out of its sample. Where `test` is missing or empty, nothing is said
    about what to hold out, and samples carry no split.

    Raises:
        UserError: there are no entries, some lie beside `train` and `test`, where they would be lost, or are no objects
            of paths.
    """
    beside = [key for key, value in content.items() if key not in SPLITS and isinstance(value, dict | list)]
    if beside:
        raise UserError(
            f"manifest {path}: {named(beside)} beside 'train' and 'test' is not read, so its samples would be lost; "
            "move them into one of the two."
        )
    entries = [(part, key, entry) for part in SPLITS for key, entry in _entries_of(path, content, part)]
    if not entries:
        raise UserError(
            f"manifest {path}: its train and test are empty, so there is nothing to read; list at least one sample."
        )
    wrong = [f"{part} {key}" for part, key, entry in entries if not _is_entry(entry, views)]
    if wrong:
        raise UserError(
            f"manifest {path}: {len(wrong)} of its {len(entries)} entries are no objects of paths ({named(wrong)}); "
            f"write {', '.join(KEYS.values())} with a path each."
        )
    divided = bool(content.get("test"))
    return [
        sample_at(
            path.parent,
            {view: entry[KEYS[view]] for view in views if entry.get(KEYS[view])},
            split=SPLITS[part] if divided else None,
        )
        for part, _, entry in entries
    ]


def _entries_of(path: Path, content: dict, part: str) -> Iterator[tuple[str, Any]]:
    entries = content.get(part) or {}
    if not isinstance(entries, dict):
        raise UserError(
            f"manifest {path}: '{part}' is no object, so its samples cannot be read; write id -> "
            f"{{{', '.join(KEYS.values())}}}."
        )
    yield from entries.items()


def _is_entry(entry: object, views: Sequence[str]) -> bool:
    """True where at least one view is named, and all that are named are named by a text."""
    if not isinstance(entry, dict):
        return False
    paths = [path for view in views if (path := entry.get(KEYS[view]))]
    return bool(paths) and all(isinstance(path, str) for path in paths)
