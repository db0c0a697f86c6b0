"""A rank's output: passed on as it comes, kept as a file once it is known where, its last lines kept at hand."""

import contextlib
import os
import time
from collections import deque
from pathlib import Path
from typing import BinaryIO

LOGS = "logs"
"""Folder in that of the run."""
TAIL_LINES = 20
TAIL_BYTES = 1 << 16
"""The last lines are looked for in so many bytes."""
MOST_KEPT = 1 << 20
"""Bytes that wait for a file; of more, the first ones are what waits."""


def log_name(rank: int) -> str:
    """File name of a rank's log."""
    return f"rank-{rank:05d}.log"


class RankLog:
    """The log of one rank. What comes before there is a folder for it is written as soon as there is."""

    def __init__(self, rank: int, host: str) -> None:
        self._name, self._host = log_name(rank), host
        self._file: BinaryIO | None = None
        self._kept = bytearray()
        self._lines: deque[bytes] = deque(maxlen=TAIL_LINES)
        self._line = b""
        self._broken: set[int] = set()
        self.path: Path | None = None

    def open_in(self, folder: Path) -> None:
        """Goes on in folder/logs/rank-RANK.log, after what runs before have written there."""
        (folder / LOGS).mkdir(parents=True, exist_ok=True)
        self.path = folder / LOGS / self._name
        self._file = self.path.open("ab", buffering=0)
        started = time.strftime("%Y-%m-%d %H:%M:%S")
        self._file.write(f"---- {started} on {self._host}, process {os.getpid()}\n".encode() + bytes(self._kept))
        self._kept.clear()

    def take(self, output: bytes, onward: int) -> None:
        """Keeps what came and passes it on to a file descriptor, for as long as somebody reads that."""
        if self._file:
            self._append(output)
        else:
            self._kept += output[: MOST_KEPT - len(self._kept)]
        *whole, self._line = (self._line + output).split(b"\n")
        self._lines.extend(line for line in whole if line.strip())
        self._line = self._line[-10_000:]
        if onward not in self._broken:
            try:
                _write_all(onward, output)
            except OSError:  # nobody reads it any more
                self._broken.add(onward)

    def note(self, text: str) -> None:
        """A line of the warden's own, which no rank has said."""
        if self._file:
            self._append(f"---- {text}\n".encode())

    def _append(self, output: bytes) -> None:
        """Writes into the file; what a full disk does not take is passed on all the same."""
        assert self._file
        with contextlib.suppress(OSError):
            self._file.write(output)

    @property
    def tail(self) -> tuple[str, ...]:
        """The last lines that are not empty, shortened."""
        return _shown([*self._lines, self._line])

    def close(self) -> None:
        """Closes the file, if there is one."""
        if self._file:
            with contextlib.suppress(OSError):
                self._file.close()


def tail_of(path: Path) -> tuple[str, ...]:
    """The last lines of a log that another warden has written, as its `tail` would be; none where there is no log."""
    try:
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - TAIL_BYTES))
            return _shown(file.read().split(b"\n"))
    except OSError:
        return ()


def _shown(lines: list[bytes]) -> tuple[str, ...]:
    """The last of them that are not empty, as a terminal would show them, shortened."""
    kept = [line for line in lines if line.strip()][-TAIL_LINES:]
    return tuple(line.decode(errors="replace").rpartition("\r")[2][:300] for line in kept)


def _write_all(descriptor: int, output: bytes) -> None:
    while output:
        output = output[os.write(descriptor, output) :]
