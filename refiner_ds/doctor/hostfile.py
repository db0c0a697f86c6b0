"""The hostfile of the deepspeed launcher, a line `node0 slots=8` for each host; its faults are told in words."""

import re
from dataclasses import dataclass
from pathlib import Path

from refiner_ds.errors import UserError

EXAMPLE = "`node0 slots=8`"


@dataclass(frozen=True)
class Place:
    """A host as ssh is given it, and the number of ranks that a launcher starts there."""

    host: str
    slots: int


def read_hostfile(path: Path) -> tuple[Place, ...]:
    """The hosts in their order; the first is the one of rank 0.

    Raises:
        UserError: there is no such file, or a line of it is not understood by the deepspeed launcher.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is no text"
        raise UserError(
            f"--hostfile {path} cannot be read ({reason}), so no host is known; write a line like {EXAMPLE} for each."
        ) from error
    return parse_hostfile(text, str(path))


def parse_hostfile(text: str, name: str) -> tuple[Place, ...]:
    """The hosts of a hostfile's text; `name` is the file's, for the words of an error."""
    places: dict[str, Place] = {}
    for number, line in enumerate(text.splitlines(), start=1):
        words = line.partition("#")[0].strip()
        if not words:
            continue
        found = re.fullmatch(r"([^\s-]\S*)\s+slots=(\d+)", words)
        if not found:
            raise UserError(
                f"--hostfile {name}, line {number}: {words!r} is not a host with its slots, so the launcher would "
                f"stop; write {EXAMPLE}, with a slot for each GPU."
            )
        host, slots = found[1], int(found[2])
        if slots < 1:
            raise UserError(
                f"--hostfile {name}, line {number}: {host} has 0 slots, so nothing would run there; give it a slot "
                "for each GPU, or take the line out."
            )
        if host in places:
            raise UserError(
                f"--hostfile {name}, line {number}: {host} is named twice, which the launcher refuses; write one line "
                "with all of its slots."
            )
        places[host] = Place(host, slots)
    if not places:
        raise UserError(
            f"--hostfile {name} names no host, so there is nothing to start; write a line like {EXAMPLE} for each."
        )
    return tuple(places.values())
