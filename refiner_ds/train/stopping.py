"""When training is asked to stop: by a signal, or because its queue's time is nearly over."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping

from refiner_ds.errors import UserError

SIGNALS = (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT)
REPEATED_SECONDS = 3.0
"""A SIGINT that comes so soon after another is the same one: launchers pass on what the terminal has sent to all."""
END = "REFINER_DS_END_TIME"
"""Environment variable: when the job's time is over, in seconds since 1970, for queues that do not tell it."""


class Stopping:
    """Whether this rank was asked to stop, and by what. A second SIGINT ends the process at once."""

    def __init__(self, stop_at: float | None = None) -> None:
        """stop_at: seconds since 1970 from when on it is asked to."""
        self._stop_at = stop_at
        self._signal, self._since = "", 0.0

    def watch(self) -> None:
        """Takes the signals over from here on."""
        for number in SIGNALS:
            signal.signal(number, self._take)

    def _take(self, number: int, _: object) -> None:
        if self._signal and number == signal.SIGINT and time.monotonic() - self._since > REPEATED_SECONDS:
            os.write(2, b"interrupted twice: ending at once; checkpoints that are complete stay as they are\n")
            os._exit(128 + number)
        if not self._signal:
            self._signal, self._since = signal.Signals(number).name, time.monotonic()

    @property
    def cause(self) -> str:
        """What asked to stop; empty while nothing did."""
        if not self._signal and self._stop_at is not None and time.time() >= self._stop_at:
            return "--save_before_end"
        return self._signal


def end_of_job(environment: Mapping[str, str]) -> float:
    """When the job's time is over, in seconds since 1970: REFINER_DS_END_TIME, or what Slurm says.

    Raises:
        UserError: nobody knows.
    """
    given = environment.get(END) or environment.get("SLURM_JOB_END_TIME") or _asked_of_slurm(environment)
    try:
        return float(given)
    except ValueError:
        raise UserError(
            "--save_before_end is given, but neither Slurm nor REFINER_DS_END_TIME tells when the job's time is over"
            f"{f' ({given})' if given else ''}; set that variable to seconds since 1970, or leave the flag out."
        ) from None


def _asked_of_slurm(environment: Mapping[str, str]) -> str:
    job = environment.get("SLURM_JOB_ID")
    if not job:
        return ""
    command = ["squeue", "--noheader", "--format=%e", "--jobs", job]
    try:
        said = subprocess.run(command, capture_output=True, text=True, timeout=30, check=True).stdout.strip()
        return str(time.mktime(time.strptime(said, "%Y-%m-%dT%H:%M:%S")))
    except (OSError, subprocess.SubprocessError, ValueError) as error:
        print(f"note: Slurm does not tell the end of job {job} ({error})", file=sys.stderr)
        return ""
