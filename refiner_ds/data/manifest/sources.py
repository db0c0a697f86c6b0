"""Several manifests as one dataset: each with a name and a weight, as the command line spells them."""

import math
import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from refiner_ds.errors import UserError


class Source(NamedTuple):
    """One manifest of a dataset."""

    name: str
    path: Path
    weight: float


def parse_source(text: str) -> Source:
    """Reads PATH, NAME=PATH or either with @WEIGHT; the name is the file's or folder's own where it is not given.

    What stands before a = is a path and no name where it holds a slash, and so does what stands after an @, so that
    ./a=b.json and a@b/c.json are paths.

    Raises:
        UserError: no path, no name, or a weight that is no positive number.
    """
    form = "write PATH, NAME=PATH or NAME=PATH@WEIGHT, e.g. kitti=kitti.json@2"
    place, at, weight_text = text.rpartition("@")
    if not at or "/" in weight_text:
        place, weight_text = text, "1"
    weight = _number(weight_text)
    if weight is None:
        raise UserError(
            f"manifest '{text}': weight '{weight_text}' is no number above 0, so how often it is drawn is unknown; "
            f"{form} (and @1 behind a path that ends in an @ part of its own)."
        )
    name, equals, path_text = place.partition("=")
    if not equals or "/" in name:
        name, path_text = (_own_name(place) if place else ""), place
    if not name or not path_text:
        raise UserError(f"manifest '{text}' has no {'name' if path_text else 'path'}; {form}.")
    return Source(name, Path(path_text), weight)


def parse_sources(texts: Sequence[str]) -> list[Source]:
    """Reads several; the number of a source in the list is its samples' `dataset`.

    Raises:
        UserError: there is none, one is malformed, or two have one name.
    """
    if not texts:
        raise UserError("no manifest is given, so there is nothing to read; name at least one.")
    sources = [parse_source(text) for text in texts]
    name, count = Counter(source.name for source in sources).most_common(1)[0]
    if count > 1:
        paths = " and ".join(str(source.path) for source in sources if source.name == name)
        raise UserError(
            f"{count} manifests are named '{name}' ({paths}), so their samples could not be told apart; "
            "name them, e.g. first=PATH second=PATH."
        )
    return sources


def _number(text: str) -> float | None:
    """A finite number above 0, or None."""
    try:
        number = float(text)
    except ValueError:
        return None
    return number if 0 < number < math.inf else None


def _own_name(place: str) -> str:
    path = Path(os.path.abspath(place))
    return path.stem if path.suffix.lower() in (".json", ".csv") else path.name
