"""What the verbs of the bench share: the files that they leave, and their command as a page shows it."""

import json
import os
import platform
import shlex
from dataclasses import fields
from pathlib import Path
from typing import Any

import torch

from refiner_ds.folders import require_folder

PLACES = ("json", "markdown", "output")
"""Flags that name a place of this machine and change no figure."""
SHOWN = {"peers_python": "PYTHON", "shards": "SHARDS", "pretrained_model_name_or_path": "BASE"}
"""Flags whose value stands on a page as another word, as it is a path."""


def prepare_files(*paths: Path | None) -> None:
    """Makes the folders of the files, as far as they are given.

    Raises:
        UserError: one cannot be made.
    """
    for path in filter(None, paths):
        require_folder(path.parent)
        path.parent.mkdir(parents=True, exist_ok=True)


def tell(page: str, told: dict[str, Any], json_file: Path | None, markdown_file: Path | None) -> None:
    """Prints a page of Markdown, and writes page and JSON where files are given."""
    print(page, end="")
    if json_file:
        json_file.write_text(json.dumps(told, indent=1) + "\n", encoding="utf-8")
    if markdown_file:
        markdown_file.write_text(page, encoding="utf-8")


def command_of(verb: str, options: Any) -> str:
    """The command as a page shows it: what differs from the defaults, without folders of this machine."""
    words = ["refiner-ds", *verb.split()]
    for field in fields(options):
        value = getattr(options, field.name)
        if field.name not in PLACES and value != field.default:
            words += [f"--{field.name}", SHOWN.get(field.name, getattr(value, "name", str(value)))]
    return shlex.join(words)


def machine_of(device: torch.device) -> str:
    """What computed, as a page shows it: the GPU, if one did, and the cores."""
    cores = f"{len(os.sched_getaffinity(0))} CPU cores ({platform.machine()})"
    return f"{torch.cuda.get_device_name(device)}, {cores}" if device.type == "cuda" else f"{cores}, no GPU used"
