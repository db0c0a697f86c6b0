"""A CSV manifest: a header that names the views, one row a sample."""

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path

from refiner_ds.data.manifest.sample import Sample, named, sample_at
from refiner_ds.errors import UserError

SPLITS = ("train", "val")


def is_table(path: Path, text: str, views: Sequence[str]) -> bool:
    """True for a file that is named .csv, or whose first line names all views between commas."""
    header = text.partition("\n")[0].strip().split(",")
    return path.suffix.lower() == ".csv" or set(views) <= {name.strip() for name in header}


def samples_of_table(path: Path, text: str, views: Sequence[str]) -> list[Sample]:
    """One sample for each row but empty ones; columns beside the views, `scene` and `split` do not matter.

    A view whose cell is empty is left out of its sample; an empty scene is an unknown one.

    Raises:
        UserError: a column of `views` is missing or stands twice, there are no rows, a row has another number of cells
            or names no picture, or a split is neither train nor val.
    """
    header, rows = _rows_of(path, text)
    known = [*views, "scene", "split"]
    missing, double = [view for view in views if view not in header], [n for n in known if header.count(n) > 1]
    if missing or double:
        what = f"has no column {named(missing)}" if missing else f"has the column {named(double)} twice"
        raise UserError(
            f"manifest {path}: its first line {what}, so samples cannot be formed; "
            f"write the header {','.join(views)}, and scene or split beside them if you like."
        )
    if not rows:
        raise UserError(f"manifest {path}: it has no rows, so there is nothing to read; list at least one sample.")
    _require_whole(path, rows, len(header))
    cells = [(line, dict(zip(header, row, strict=True))) for line, row in rows]
    _require_paths(path, cells, views)
    if "split" in header:
        _require_splits(path, cells)
    return [
        sample_at(path.parent, _paths_of(row, views), row.get("scene") or None, row.get("split")) for _, row in cells
    ]


def _rows_of(path: Path, text: str) -> tuple[list[str], list[tuple[int, list[str]]]]:
    """The header, and (line number, cells) of each row; cells without the space around them."""
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    rows = []
    try:
        for row in reader:
            if row:
                rows.append((reader.line_num, [cell.strip() for cell in row]))
    except csv.Error as error:
        raise UserError(
            f"manifest {path} is no CSV at line {reader.line_num} ({error}); write one sample a line, cells separated "
            "by commas, and in double quotes where they hold one."
        ) from error
    return (rows[0][1], rows[1:]) if rows else ([], [])


def _paths_of(row: Mapping[str, str], views: Sequence[str]) -> dict[str, str]:
    return {view: row[view] for view in views if row[view]}


def _require_whole(path: Path, rows: list[tuple[int, list[str]]], width: int) -> None:
    wrong = [line for line, row in rows if len(row) != width]
    if wrong:
        raise UserError(
            f"manifest {path}: {len(wrong)} of its {len(rows)} rows do not have the {width} cells that the header "
            f"names (line {named(wrong)}); put a path with a comma in it into double quotes."
        )


def _require_paths(path: Path, cells: list[tuple[int, dict[str, str]]], views: Sequence[str]) -> None:
    wrong = [line for line, row in cells if not _paths_of(row, views)]
    if wrong:
        raise UserError(
            f"manifest {path}: {len(wrong)} of its {len(cells)} rows name no picture (line {named(wrong)}); "
            f"fill {', '.join(views)} or take the rows out."
        )


def _require_splits(path: Path, cells: list[tuple[int, dict[str, str]]]) -> None:
    wrong = [line for line, row in cells if row["split"] not in SPLITS]
    if wrong:
        raise UserError(
            f"manifest {path}: the split of {len(wrong)} of its {len(cells)} rows is neither train nor val (line "
            f"{named(wrong)}), so they would be on no side; write one of the two, or leave the column out."
        )
