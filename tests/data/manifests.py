"""The same six samples written in every form of a manifest."""

import csv
import json
from pathlib import Path

from refiner_ds.data.manifest import VIEWS

DRIVES = ("drive_0/cam", "drive_1/cam")
NAMES = [f"{drive}/{number}" for drive in DRIVES for number in (1, 2, 10)]
"""Samples of `write_folder`, in natural order."""


def write_folder(folder: Path) -> Path:
    """Writes FOLDER/{render,gt,cond}/DRIVE/cam/NUMBER, png and jpg; nothing opens them."""
    for view in VIEWS:
        for name in NAMES:
            path = folder / view / f"{name}.{'jpg' if view == 'gt' else 'png'}"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(b"not opened")
    return folder


def paths_of(name: str) -> dict[str, str]:
    return {"render": f"render/{name}.png", "gt": f"gt/{name}.jpg", "cond": f"cond/{name}.png"}


def as_lists(folder: Path, **more: object) -> Path:
    path = folder / "lists.json"
    path.write_text(json.dumps({view: [paths_of(name)[view] for name in NAMES] for view in VIEWS} | more))
    return path


def as_difix(folder: Path, held_out: int = 2, **changes: object) -> Path:
    """NAMES in Difix's form, the last of them as `test`; `changes` overwrite keys of the very first entry."""
    entries = {
        name: {"image": p["render"], "target_image": p["gt"], "ref_image": p["cond"], "prompt": "remove degradation"}
        for name in NAMES
        for p in [paths_of(name)]
    }
    entries[NAMES[0]].update(changes)
    first = len(NAMES) - held_out
    path = folder / "difix.json"
    parts = {"train": NAMES[:first], "test": NAMES[first:]}
    path.write_text(json.dumps({part: {name: entries[name] for name in names} for part, names in parts.items()}))
    return path


def as_table(folder: Path, name: str = "table.csv", **columns: list[str]) -> Path:
    path = folder / name
    with path.open("w", newline="", encoding="utf-8-sig") as file:  # with the mark that spreadsheets write
        writer = csv.writer(file)
        writer.writerow(["note", *VIEWS, *columns])
        for number, sample in enumerate(NAMES):
            row = [paths_of(sample)[view] for view in VIEWS]
            writer.writerow(["of, no matter", *row, *(column[number] for column in columns.values())])
    return path


def table_of(folder: Path, text: str) -> Path:
    path = folder / "table.csv"
    path.write_text(text)
    return path
