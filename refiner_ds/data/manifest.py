"""The manifest: three aligned lists of picture paths. Reads it and says what is wrong with it; opens no picture."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from refiner_ds.errors import UserError

VIEWS = ("render", "gt", "cond")
"""The views of a sample: degraded render and photograph of the target view, photograph of the reference view."""


@dataclass(frozen=True)
class Sample:
    """Files of one sample by view, and their spelling in the manifest."""

    files: dict[str, Path]
    sources: dict[str, str]


def read_manifest(path: Path, views: Sequence[str] = VIEWS) -> list[Sample]:
    """Reads the aligned lists `views` of a JSON manifest; relative paths start at the manifest's folder.

    Raises:
        UserError: no JSON, a list missing, lists of different lengths, empty lists, or files that do not exist
            (all are counted, the first few named).
    """
    lists = _read_lists(path, views)
    lengths = {view: len(lists[view]) for view in views}
    if len(set(lengths.values())) > 1:
        counts = ", ".join(f"{view} {count}" for view, count in lengths.items())
        raise UserError(
            f"manifest {path}: the lists have different lengths ({counts}), so entries of equal index do not belong "
            "together; make them equally long and aligned."
        )
    if not lists[views[0]]:
        raise UserError(f"manifest {path}: its lists are empty, so there is nothing to read; list at least one sample.")
    samples = [
        Sample({v: path.parent / lists[v][i] for v in views}, {v: lists[v][i] for v in views})
        for i in range(lengths[views[0]])
    ]
    _require_files(path, samples)
    return samples


def _read_lists(path: Path, views: Sequence[str]) -> dict[str, list[str]]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(
            f"manifest {path} cannot be read ({error.strerror}); name a JSON file with the lists {', '.join(views)}."
        ) from error
    except ValueError as error:
        raise UserError(
            f"manifest {path} is not JSON ({error}); write an object with lists {', '.join(views)}."
        ) from error
    for view in views:
        entries = content.get(view) if isinstance(content, dict) else None
        if not isinstance(entries, list) or not all(isinstance(entry, str) for entry in entries):
            raise UserError(
                f"manifest {path}: '{view}' is no list of paths, so samples cannot be formed; "
                f"write an object with the aligned lists {', '.join(views)}."
            )
    return content


def _require_files(path: Path, samples: list[Sample]) -> None:
    files = dict.fromkeys(file for sample in samples for file in sample.files.values())
    missing = [file for file in files if not file.is_file()]
    if missing:
        named = ", ".join(map(str, missing[:3])) + (", ..." if len(missing) > 3 else "")
        raise UserError(
            f"manifest {path}: {len(missing)} of its files do not exist ({named}); "
            f"mend the paths, which start at {path.parent}/ where they are relative."
        )
