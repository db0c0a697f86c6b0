"""Files on anything that fsspec knows: s3://, gs://, hf://, file:// and more, each with its own credentials."""

import errno
from collections.abc import Iterator
from urllib.parse import urlsplit

import fsspec

from refiner_ds.data.store.retry import Refused, Transient
from refiner_ds.data.store.retry_after import seconds_of
from refiner_ds.data.store.source import without_credentials
from refiner_ds.errors import UserError

PIECE = 8 << 20
"""Bytes of one request: it comes as a whole, so this is what a thread holds."""
PACKAGES = {"s3": "s3fs", "s3a": "s3fs", "gs": "gcsfs", "gcs": "gcsfs"}
"""By scheme, the package that is an extra of ours."""
FINAL = {errno.EINVAL, errno.EPERM, errno.EACCES, errno.ENOSYS, errno.ENAMETOOLONG}
"""Numbers of an OSError that no second attempt mends."""


class FilesystemSource:
    """Files below a URL of fsspec.

    Options come from where each file system looks for them: the usual files and variables of the cloud, and fsspec's
    own settings (FSSPEC_S3_ANON=true, ~/.config/fsspec/*.json).

    Raises:
        UserError: its package is not installed, or nothing is known by this scheme.
    """

    has_ranges: bool | None = True

    def __init__(self, location: str) -> None:
        self.location = location
        scheme = urlsplit(location).scheme
        try:
            self._filesystem, self._root = fsspec.url_to_fs(location)
        except ImportError as error:
            package = PACKAGES.get(scheme)
            remedy = f"pip install {package}" if package else f"install what it asks for ({error})"
            raise UserError(
                f"shards {without_credentials(location)} need a package for {scheme}:// that is not here; {remedy}."
            ) from error
        except ValueError as error:
            raise UserError(
                f"shards {without_credentials(location)} cannot be opened ({error}); "
                "give a folder, or a URL such as s3://bucket/folder."
            ) from error

    def __reduce__(self) -> tuple:
        return FilesystemSource, (self.location,)

    def label(self, name: str) -> str:
        return f"{without_credentials(self.location).rstrip('/')}/{name}"

    def whole(self, name: str) -> bytes:
        return self._cat(name)

    def stream(self, name: str, first: int, size: int) -> Iterator[bytes]:
        for start in range(first, first + size, PIECE):
            end = min(start + PIECE, first + size)
            piece = self._cat(name, start=start, end=end)
            if len(piece) > end - start:
                raise Transient(f"{len(piece)} bytes came for {start}-{end - 1}")
            yield piece
            if len(piece) < end - start:
                return

    def _cat(self, name: str, **part: int) -> bytes:
        try:
            # keywords only: file systems differ in the order of their arguments, and one took offsets for a version
            return self._filesystem.cat_file(f"{self._root.rstrip('/')}/{name}", **part)
        except Exception as error:  # every file system has its own kinds
            raise _failure(error) from error


def _failure(error: Exception) -> Exception:
    status = getattr(error, "status", None) or getattr(error, "code", None)
    told = " ".join(str(getattr(error, "strerror", None) or error).split()) or type(error).__name__
    if isinstance(error, FileNotFoundError) or status == 404:
        return Refused("is not there; check the path.")
    if isinstance(error, PermissionError) or status in (401, 403) or "Credential" in type(error).__name__:
        return Refused(f"may not be read ({told}); check the path and the credentials.")
    if isinstance(error, (ValueError, TypeError, NotImplementedError)) or getattr(error, "errno", None) in FINAL:
        return Refused(f"cannot be read ({told}); check the path, and that the file is as long as the index says.")
    return Transient(f"{type(error).__name__} ({told})", _retry_after(error))


def _retry_after(error: BaseException | None) -> float:
    """What an answer of S3 says, which s3fs keeps as the cause."""
    while error is not None:
        response = getattr(error, "response", None)
        if isinstance(response, dict):
            headers = response.get("ResponseMetadata", {}).get("HTTPHeaders", {})
            return seconds_of(str(headers.get("retry-after", "")))
        error = error.__cause__
    return 0.0
