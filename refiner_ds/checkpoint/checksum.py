"""Checksums of files. Light, as listing starts at once."""

from pathlib import Path

import google_crc32c

CHUNK = 8 << 20
"""Bytes that are written, or read, and checksummed at once."""


def crc_of(path: Path) -> int:
    """CRC-32C of a file.

    Raises:
        OSError: it cannot be read.
    """
    crc = 0
    with path.open("rb", buffering=0) as file:
        while chunk := file.read(CHUNK):
            crc = google_crc32c.extend(crc, chunk)
    return crc
