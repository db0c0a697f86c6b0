"""What this process and all processes below it have used: CPU time to the microsecond, and peak memory. Linux only."""

import os
import resource
import time
from pathlib import Path

import psutil


def cpu_seconds() -> float:
    """CPU seconds, user and system, of this process and of every process below it, those that have ended included.

    The difference of two readings is what was used between them: a process that is alive is read from its own CPU
    clock, in nanoseconds, and one that ends moves into what its parent has reaped.
    """
    while True:
        reaped = _reaped()
        try:
            below = sum(_cpu_seconds_of(child) for child in psutil.Process().children(recursive=True))
        except (psutil.NoSuchProcess, OSError):
            continue  # one ended while it was looked at, and is among the reaped ones now
        if _reaped() == reaped:
            return time.process_time() + reaped + below


def peak_megabytes() -> float:
    """Most memory that one process below this one has ever held at once, in MB; this one's where there is none.

    Resident pages (VmHWM), so those count that are shared with other processes or mapped from files.
    """
    workers = [child.pid for child in psutil.Process().children(recursive=True)]
    return max(map(_peak_megabytes_of, workers or [os.getpid()]))


def forget_own_peak() -> None:
    """From here on the peak of this process is that of what follows; it begins at what is resident now."""
    Path("/proc/self/clear_refs").write_text("5")


def own_peak_megabytes() -> float:
    """Most memory that this process alone has held at once since `forget_own_peak`, in MB of resident pages."""
    return _peak_megabytes_of(os.getpid())


def peak_megabytes_of_ended() -> float:
    """The same of the processes that this one has started and that have ended, in MB."""
    return resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1.024 / 1000


def private_megabytes() -> float:
    """Memory that the largest process below this one holds for itself alone now, in MB; this one's where none is."""
    workers = [child.pid for child in psutil.Process().children(recursive=True)]
    return max(map(_private_megabytes_of, workers or [os.getpid()]))


def _reaped() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def _cpu_seconds_of(process: psutil.Process) -> float:
    clock = (~process.pid << 3) | 2  # clock_getcpuclockid(3): all threads of the process
    times = process.cpu_times()
    return time.clock_gettime(clock) + times.children_user + times.children_system


def _peak_megabytes_of(pid: int) -> float:
    return _kilobytes(Path(f"/proc/{pid}/status"), ("VmHWM:",)) / 1000


def _private_megabytes_of(pid: int) -> float:
    return _kilobytes(Path(f"/proc/{pid}/smaps_rollup"), ("Private_Clean:", "Private_Dirty:")) / 1000


def _kilobytes(path: Path, names: tuple[str, ...]) -> float:
    """The sum of some lines of a file of /proc; 0 where the process has ended. Its kB are 1024 bytes."""
    try:
        lines = [line.split() for line in path.read_text().splitlines()]
    except OSError:
        return 0.0
    return sum(int(line[1]) * 1.024 for line in lines if line and line[0] in names)
