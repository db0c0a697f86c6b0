"""The lock of a run's folder: one job at a time trains in it. The system lets go of it however its holder ends."""

import fcntl
import json
import os
import platform
import time
from collections.abc import Callable
from pathlib import Path

from refiner_ds.errors import UserError

LOCK = ".lock"
PATIENCE_SECONDS = 60.0
"""How long a job that is ending is waited for."""
GLANCE_SECONDS = 0.1
"""After so long nobody holds it any more who only looked whether it is held."""


class Lock:
    """Held by rank 0 from its construction to the end of the process.

    Raises:
        UserError: another job is training in the folder, or nothing can be written there.
    """

    def __init__(self, folder: Path, tell: Callable[[str], None]) -> None:
        """tell: told where the job before is still ending, and is waited for."""
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._file = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT, 0o644)
        except OSError as error:
            raise UserError(
                f"--output_dir {folder} cannot be written ({error.strerror}), so no checkpoint could be kept; "
                "name another folder."
            ) from error
        deadline = None
        while not self._is_taken(folder):
            holder = self._holder()
            if not holder.get("ends") or (deadline and time.monotonic() > deadline):
                os.close(self._file)
                raise UserError(
                    f"--output_dir {folder} is being trained in by another job{_who(holder)}, and two would overwrite "
                    "each other's checkpoints; wait for it, end it, or name another folder."
                )
            if deadline is None:
                tell(f"waiting for the job before{_who(holder)}, which is ending")
                deadline = time.monotonic() + PATIENCE_SECONDS
            time.sleep(0.2)
        self._write(ends=False)

    def announce_end(self) -> None:
        """Says that this job is ending, so that the next one waits for it instead of being refused."""
        self._write(ends=True)

    def _is_taken(self, folder: Path) -> bool:
        try:
            try:
                fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                time.sleep(GLANCE_SECONDS)
                fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        except OSError as error:
            raise UserError(
                f"--output_dir {folder} lies on a disk that has no locks ({error.strerror}), so that two jobs could "
                "overwrite each other's checkpoints; mount it with locks (Lustre: -o flock), or name another folder."
            ) from error
        return True

    def _holder(self) -> dict[str, object]:
        try:
            return dict(json.loads(os.pread(self._file, 4096, 0)))
        except ValueError:  # it has not said yet
            return {}

    def _write(self, ends: bool) -> None:
        said = json.dumps({"host": platform.node(), "process": os.getpid(), "ends": ends}).encode()
        os.ftruncate(self._file, os.pwrite(self._file, said, 0))


def is_held(folder: Path) -> bool:
    """Whether a job is training in a folder now, on whatever host; changes nothing there."""
    try:
        file = os.open(folder / LOCK, os.O_RDONLY)
    except OSError:  # nobody has trained there yet, or what is there is no folder
        return False
    try:
        fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:  # a disk without locks, where training refuses to start
        return False
    finally:
        os.close(file)  # which lets go of it
    return False


def _who(holder: dict[str, object]) -> str:
    return f" (process {holder['process']} on {holder['host']})" if {"process", "host"} <= holder.keys() else ""
