"""Files behind http(s), by requests: fsspec's own http hides Content-Range and Retry-After, and needs aiohttp.

requests is there anyway (mlflow and diffusers need it), knows proxies, ~/.netrc and certificates, and streams.
"""

import re
import threading
from collections.abc import Iterator

import requests

from refiner_ds.data.store.retry import Refused, Transient
from refiner_ds.data.store.retry_after import seconds_of
from refiner_ds.data.store.source import below, without_credentials

CONNECT_SECONDS, SILENT_SECONDS = 10.0, 30.0
BLOCK = 1 << 16
"""Bytes taken from a connection at once; what is incomplete when it breaks has to come again."""
RETRIED = {408, 425, 429}
"""Statuses that pass, beside all from 500 on: request timeout, too early, too many requests."""


class HttpSource:
    """Files below an http(s) URL.

    Args:
        silent_seconds: a connection on which nothing comes for so long is given up.
    """

    def __init__(self, location: str, silent_seconds: float = SILENT_SECONDS) -> None:
        self.location = location
        self.silent_seconds = silent_seconds
        self.has_ranges: bool | None = None
        self._thread = threading.local()  # a session of requests is not promised to be safe for several threads

    def __reduce__(self) -> tuple:
        return HttpSource, (self.location, self.silent_seconds)

    def label(self, name: str) -> str:
        return without_credentials(below(self.location, name))

    def whole(self, name: str) -> bytes:
        with self._get(name, {}) as response:
            return b"".join(self._blocks(response))

    def stream(self, name: str, first: int, size: int) -> Iterator[bytes]:
        with self._get(name, {"Range": f"bytes={first}-{first + size - 1}"}) as response:
            self.has_ranges = response.status_code == 206
            if self.has_ranges:
                _check_range(response.headers.get("Content-Range", ""), first, size)
            unwanted, left = (0 if self.has_ranges else first), size
            for received in self._blocks(response):
                block = received[unwanted : unwanted + left]
                unwanted = max(unwanted - len(received), 0)
                left -= len(block)
                if block:
                    yield block
                if not left:
                    return

    def _get(self, name: str, headers: dict[str, str]) -> requests.Response:
        """An answer of status 200 or 206, its body still to come."""
        if not hasattr(self._thread, "session"):
            self._thread.session = requests.Session()
        try:
            response = self._thread.session.get(
                below(self.location, name),
                headers={"Accept-Encoding": "identity", **headers},
                stream=True,
                timeout=(CONNECT_SECONDS, self.silent_seconds),
            )
        except ValueError as error:  # what requests raises for a URL that cannot be one
            raise Refused("is no address that can be asked; check how it is written.") from error
        except requests.RequestException as error:
            raise Transient(self._words(error)) from error
        if response.status_code not in (200, 206):
            response.close()
            raise _failure(response)
        return response

    def _blocks(self, response: requests.Response) -> Iterator[bytes]:
        try:
            yield from response.iter_content(BLOCK)
        except requests.RequestException as error:
            raise Transient(self._words(error)) from error

    def _words(self, error: Exception) -> str:
        """What went wrong, without the URL that requests puts into its texts: it may be a signed one."""
        if isinstance(error, requests.Timeout) or "timed out" in str(error):
            return f"nothing came for {self.silent_seconds:.0f} s"
        if isinstance(error, requests.exceptions.ChunkedEncodingError):
            return "the connection broke in the middle"
        cause: BaseException | None = error
        reason = type(error).__name__
        while cause is not None:
            reason = getattr(cause, "strerror", None) or reason
            cause = cause.__cause__ or cause.__context__
        return f"the connection failed ({reason})"


def _failure(response: requests.Response) -> Exception:
    status = f"{response.status_code} {response.reason}".strip()
    if response.status_code in RETRIED or response.status_code >= 500:
        return Transient(f"the server answers {status}", seconds_of(response.headers.get("Retry-After", "")))
    remedy = "check the path"
    if response.status_code in (401, 403, 407):
        remedy = "check the path and the credentials, which are taken from ~/.netrc or a signed URL"
    elif response.status_code == 416:
        remedy = "the file is shorter than the index says: copy it there again"
    return Refused(f"is answered with {status} and cannot be read; {remedy}.")


def _check_range(content_range: str, first: int, size: int) -> None:
    """Refuses a part that is not the one that was asked for."""
    found = re.fullmatch(r"\s*bytes (\d+)-(\d+)/(\d+|\*)\s*", content_range)
    if found and found[3].isdecimal() and int(found[3]) < first + size:
        raise Refused(
            f"is shorter than the index says (the server sends {content_range} for bytes {first}-{first + size - 1}); "
            "copy it there again."
        )
    if not found or (int(found[1]), int(found[2])) != (first, first + size - 1):
        raise Transient(f"the server sends {content_range or 'an unnamed part'} for bytes {first}-{first + size - 1}")
