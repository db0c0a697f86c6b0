"""What an export says of itself in export.json, and by which a later export knows that it may be replaced."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from refiner_ds.errors import UserError
from refiner_ds.folders import require_free, require_replaceable, restore_name
from refiner_ds.refiners.unclip.adapter import RECORD

FORMAT = 1


def write_record(folder: Path, facts: Mapping[str, Any]) -> None:
    """Writes export.json beside all that is exported, and lists that."""
    record = {"format": FORMAT, **facts, "files": sorted({*_files(folder), RECORD})}
    (folder / RECORD).write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


def read_record(folder: Path) -> dict[str, Any] | None:
    """What was exported into a folder; None where it does not tell."""
    try:
        record = dict(json.loads((folder / RECORD).read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return None
    return record if isinstance(record.get("files"), list) else None


def require_place(out: Path, replaces: bool) -> None:
    """Refuses a folder that holds something, unless that is an export, and nothing else, and may be replaced.

    Raises:
        UserError: says what is there.
    """
    if replaces:
        restore_name(out)
    if not replaces or not out.is_dir() or not any(out.iterdir()):
        return require_free(out, "an export is never mixed")
    require_replaceable(out)
    record = read_record(out)
    if record is None:
        raise UserError(
            f"--replace would delete {out}, which has no {RECORD} that tells that it is an export; name another folder."
        )
    if others := sorted(_files(out) - set(record["files"])):
        raise UserError(
            f"--replace would delete {out / others[0]}, which is no part of the export there; move it away, or name "
            "another folder."
        )


def _files(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if not path.is_dir()}
