"""What a verb that looks answers: lines for a person, or JSON for a program."""

import json
import math
from pathlib import Path
from typing import Any

from refiner_ds.folders import require_folder

PRINTED = Path("-")


def require_answerable(path: Path | None) -> None:
    """Refuses a file of --json that cannot be written.

    Raises:
        UserError: its folder cannot be made.
    """
    if path and path != PRINTED:
        require_folder(path.parent)


def answer(text: str, content: Any, path: Path | None) -> None:
    """Prints the text, or with - the content; otherwise that goes into the file that is named, if one is."""
    told = json.dumps(_plain(content), indent=1)
    print(told if path == PRINTED else text)
    if path and path != PRINTED:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(told + "\n", encoding="utf-8")


def _plain(value: Any) -> Any:
    """inf and nan as words, as in the journal, since JSON lacks them."""
    if isinstance(value, dict):
        return {name: _plain(each) for name, each in value.items()}
    if isinstance(value, list):
        return [_plain(each) for each in value]
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value
