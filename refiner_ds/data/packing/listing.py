"""The members of any tar, strictly: what readers take for the end of a tar though it was cut or damaged is an error."""

import tarfile
from pathlib import Path
from typing import NamedTuple

from refiner_ds.data.packing.tar import END


class TarError(Exception):
    """What is wrong with a tar, as the end of a sentence that begins with its name."""


class Place(NamedTuple):
    """A file in a tar: its name, and the offset and number of its bytes."""

    name: str
    offset: int
    size: int


def members_of(path: Path) -> list[Place]:
    """The regular files in a tar, in its order; POSIX, GNU and old forms are read.

    Raises:
        TarError: it is compressed or no tar, or ends without tar's end mark, or has something after it.
        OSError: it cannot be read.
    """
    places = []
    try:
        with tarfile.open(path, "r:") as tar:
            for member in tar:
                if member.isreg() and not member.issparse():
                    places.append(Place(member.name, member.offset_data, member.size))
            end = tar.offset
    except (tarfile.TarError, EOFError, ValueError) as error:
        raise TarError(f"is no plain tar that can be read to its end ({error})") from error
    with path.open("rb") as file:
        file.seek(end)
        if file.read(len(END)) != END:
            raise TarError(f"has neither a member nor tar's end mark at byte {end}, so it was cut or damaged there")
        while block := file.read(1 << 20):
            if any(block):
                raise TarError(f"has something after tar's end mark at byte {end}, so it was damaged there")
    return places
