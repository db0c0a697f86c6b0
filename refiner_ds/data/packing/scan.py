"""The samples in one tar that something else wrote: members KEY.VIEW.EXTENSION, wherever in the tar they lie."""

import os
import re
from dataclasses import dataclass
from pathlib import Path

from refiner_ds.data.images import PictureError
from refiner_ds.data.index import sha256_of
from refiner_ds.data.manifest import VIEWS
from refiner_ds.data.packing.check import Checked, checked_of
from refiner_ds.data.packing.listing import Place, TarError, members_of

MEMBER = re.compile(rf"(.+)\.({'|'.join(VIEWS)})\.(?:png|jpe?g|webp)", re.IGNORECASE)
"""What is the picture of a view. The key may hold dots, at which plain webdataset would cut it."""


@dataclass(frozen=True)
class Group:
    """The members of one key by view, and what is wrong with them as a sample."""

    key: str
    places: dict[str, Place]
    problem: str | None


@dataclass(frozen=True)
class Listing:
    """What the headers of one tar say: its samples in the order of their first members, and how many other members."""

    name: str
    groups: list[Group]
    others: int
    problem: str | None = None


@dataclass(frozen=True)
class Scan:
    """What reading a listed tar found: its bytes, sha256 (hex), and of each group what to index, or why not to."""

    bytes: int
    sha256: str
    found: list[Checked | str]


def list_tar(job: tuple[Path, str]) -> Listing:
    """Reads the headers of a tar, `job` being (folder, name in it)."""
    folder, name = job
    try:
        places = members_of(folder / name)
    except TarError as error:
        return Listing(name, [], 0, str(error))
    except OSError as error:
        return Listing(name, [], 0, f"cannot be read ({error.strerror})")
    matches = [(MEMBER.fullmatch(place.name), place) for place in places]
    members: dict[str, list[tuple[str, Place]]] = {}
    for match, place in matches:
        if match:
            members.setdefault(match[1], []).append((match[2].lower(), place))
    groups = [Group(key, dict(found), _problem(key, [view for view, _ in found])) for key, found in members.items()]
    others = sum(match is None for match, _ in matches)
    return Listing(name, groups, others, None if groups else "holds no KEY.VIEW.EXTENSION of a picture")


def _problem(key: str, views: list[str]) -> str | None:
    wrong = [f"no {view}" for view in VIEWS if view not in views]
    wrong += [f"{views.count(view)} members {view}" for view in VIEWS if views.count(view) > 1]
    return f"{key} has {' and '.join(wrong)}" if wrong else None


def scan_tar(job: tuple[Path, Listing]) -> Scan:
    """Decodes every sample of a listed tar in a folder and hashes it."""
    folder, listing = job
    path = folder / listing.name
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except OSError as error:
        return Scan(0, "", [f"{group.key} cannot be read ({error.strerror})" for group in listing.groups])
    try:
        found = [group.problem or _look(descriptor, group) for group in listing.groups]
        return Scan(os.fstat(descriptor).st_size, sha256_of(path), found)
    finally:
        os.close(descriptor)


def _look(descriptor: int, group: Group) -> Checked | str:
    def read(view: str) -> bytes:
        return os.pread(descriptor, group.places[view].size, group.places[view].offset)

    try:
        return checked_of(read, {view: place.name for view, place in group.places.items()})
    except PictureError as error:
        return str(error)
