"""Processes that pack and verify: they end with the one that started them, and have few jobs waiting."""

import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeVar

from refiner_ds.errors import UserError

T = TypeVar("T")
U = TypeVar("U")
Tell = Callable[[str, int, int, int], None]
"""Told (what, samples done, samples in all, bytes done) as the work goes on."""
WAITING = 4
"""Jobs that wait for each process, so that none stands idle while the results are looked at."""


def tell_nobody(what: str, done: int, total: int, size: int) -> None:
    """A `Tell` for where nobody looks."""


@dataclass(frozen=True)
class Crew:
    """So many processes."""

    pool: ProcessPoolExecutor
    workers: int

    def results(self, function: Callable[[T], U], jobs: Iterable[T]) -> Iterator[U]:
        """Yields function(job) for each job, in the jobs' order; jobs are asked for only shortly before their turn."""
        waiting: deque[Future[U]] = deque()
        for job in jobs:
            waiting.append(self.pool.submit(function, job))
            if len(waiting) > WAITING * self.workers:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


@contextmanager
def crew_of(workers: int) -> Iterator[Crew]:
    """Yields a crew; once the block has ended, however it does, no process of it is left.

    Raises:
        UserError: there are no workers, or one was killed.
    """
    if workers < 1:
        raise UserError(f"--workers {workers} leaves nobody to do the work; give 1 or more.")
    pool = ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn"), initializer=_start)
    try:
        yield Crew(pool, workers)
    except BrokenProcessPool as error:
        raise UserError(
            f"one of the --workers {workers} processes was killed (out of memory?), so the work is not complete; "
            "start it again, perhaps with fewer."
        ) from error
    finally:
        pool.shutdown(cancel_futures=True)


def _start() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the terminal sends it to all; the parent decides
    threading.Thread(target=_end_with_the_parent, daemon=True).start()


def _end_with_the_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)
