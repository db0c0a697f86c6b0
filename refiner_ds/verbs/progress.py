"""Progress of verbs that take a while: a bar on a terminal, elsewhere (in the log of a job) a line now and then."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

SECONDS = 30.0
"""Between two lines of a log."""


@contextmanager
def progress_bar(is_shown: bool = True) -> Iterator[Callable[..., None]]:
    """Yields a function to tell (what, done, total, bytes=0) as the work goes on; each `what` has its own line."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[rate]}"))
    with Progress(*columns, TimeRemainingColumn(), disable=not is_shown) as progress:
        tasks: dict[str, TaskID] = {}
        starts: dict[str, tuple[float, int, int]] = {}
        is_terminal = progress.console.is_terminal
        progress.disable |= not is_terminal
        last_line = time.monotonic()

        def tell(what: str, done: int, total: int, size: int = 0) -> None:
            nonlocal last_line
            if what not in tasks:
                tasks[what] = progress.add_task(what, total=total, rate="")
                starts[what] = time.monotonic(), done, size
            rate = _rate(*starts[what], done, size)
            progress.update(tasks[what], completed=done, rate=rate)
            if is_shown and not is_terminal and time.monotonic() - last_line > SECONDS:
                last_line = time.monotonic()
                print(f"{what}: {done} of {total}{', ' if rate else ''}{rate}", file=sys.stderr, flush=True)

        yield tell


def _rate(start: float, first_done: int, first_size: int, done: int, size: int) -> str:
    """How fast it goes since the first telling, e.g. "12.3/s 45.6 MB/s"."""
    seconds = time.monotonic() - start
    if seconds <= 0 or done == first_done:
        return ""
    speed = f"{(done - first_done) / seconds:.1f}/s"
    return f"{speed} {(size - first_size) / seconds / 1e6:.1f} MB/s" if size else speed
