"""What a remote place of files has to be able to do; each call is one attempt, which `retry` repeats."""

from collections.abc import Iterator
from typing import Protocol
from urllib.parse import urlsplit, urlunsplit

from refiner_ds.errors import UserError


class Source(Protocol):
    """Files below one URL. Instances can be sent to other processes, and used by several threads."""

    has_ranges: bool | None
    """Whether the server sends parts of a file when asked for them; None until it was asked."""

    def label(self, name: str) -> str:
        """The address of a file, for people: without credentials."""

    def whole(self, name: str) -> bytes:
        """All of a file.

        Raises:
            Transient: it may work the next time.
            Refused: it will not.
        """

    def stream(self, name: str, first: int, size: int) -> Iterator[bytes]:
        """The bytes first, first + 1, ... of a file: `size` at most, fewer where the connection ended early.

        Raises:
            Transient: it may work the next time.
            Refused: it will not.
        """


def without_credentials(url: str) -> str:
    """A URL that may be shown: without user, password, and the query, which holds the signature of a signed one."""
    try:
        parts = urlsplit(url)
    except ValueError as error:  # perhaps with a password in it, so that it is not told
        raise UserError(f"the URL of the shards cannot be taken apart ({error}); check how it is written.") from error
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))


def below(url: str, name: str) -> str:
    """The URL of a file below another, whose query (a signature, say) it keeps."""
    parts = urlsplit(url)
    return urlunsplit((parts.scheme, parts.netloc, f"{parts.path.rstrip('/')}/{name}", parts.query, ""))
