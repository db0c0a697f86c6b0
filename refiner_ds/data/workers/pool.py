"""Workers of the stream: processes that fill slots ahead of whoever reads, in the order that was asked for."""

import contextlib
import os
import subprocess
import sys
from collections import deque
from collections.abc import Generator, Iterable, Iterator
from dataclasses import dataclass
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from typing import Any

import numpy as np

from refiner_ds.data.order import Draw
from refiner_ds.data.samples import Drawn, Samples
from refiner_ds.data.workers.slots import Lender, Slots
from refiner_ds.data.workers.worker import Crash, Hello, Job
from refiner_ds.errors import UserError

AHEAD = 2
"""Micro-batches that a worker has been asked for: one that it fills and one that waits."""

HELD = 2
"""Micro-batches that a reader may hold without a copy: the one that it has got, and the one before."""

KEEPS_MEMORY = {"MALLOC_MMAP_THRESHOLD_": str(1 << 25), "MALLOC_TRIM_THRESHOLD_": str(1 << 28)}
"""For glibc: what a picture took is kept for the next one. Else each allocation of megabytes comes from the system and
goes back, page by page, which can take longer than decoding. 32 MB are the most that any glibc takes."""

START = """
import signal, sys
signal.signal(signal.SIGINT, signal.SIG_IGN)
if sys.path[0] == '':
    del sys.path[0]
from refiner_ds.data.workers.worker import main
main()
"""
"""What a worker runs. The terminal sends its interrupt to all processes, and the parent decides; the folder where a run
was started is no place to import from, unless it is one for the parent."""
END_SECONDS = 5
"""How long a killed worker is waited for; one that waits for a dead disk cannot end."""


@dataclass(frozen=True)
class Filled:
    """A micro-batch: (V, B, H, H, 3) uint8, which stays as it is while anything refers to it."""

    pictures: np.ndarray
    draws: list[Draw]
    drawn: Drawn


@dataclass(frozen=True)
class _Worker:
    process: subprocess.Popen
    connection: Connection


def filled(
    samples: Samples, jobs: Iterable[list[Draw]], workers: int, micro_batch_size: int
) -> Generator[Filled, None, None]:
    """Yields the micro-batches of these draws in their order; the workers end with it, however it ends.

    Args:
        workers: processes; with none the pictures are read here, one micro-batch after the other.

    Raises:
        UserError: a sample cannot be used, or a worker was killed.
    """
    if workers == 0:
        for draws in jobs:
            pictures = np.empty(samples.shape(draws), np.uint8)
            yield Filled(pictures, draws, samples.fill(draws, pictures))
        return
    slots = Slots(workers * AHEAD + HELD, samples.most_bytes(micro_batch_size))
    with contextlib.ExitStack() as running, contextlib.closing(slots):
        crew = [_start(samples, slots, running) for _ in range(workers)]
        yield from _results(samples, iter(jobs), crew, Lender(slots))


def _results(samples: Samples, jobs: Iterator[list[Draw]], crew: list[_Worker], lender: Lender) -> Iterator[Filled]:
    """Job j is the business of worker j modulo their number, so that answers come in order and nothing is searched."""
    waiting: deque[tuple[_Worker, Job]] = deque()
    asked, ahead = 0, len(crew) * AHEAD
    while True:
        for draws in _first(jobs, ahead - len(waiting)):
            worker, job = crew[asked % len(crew)], Job(lender.take(), draws)
            _send(worker, job)
            waiting.append((worker, job))
            asked += 1
        if not waiting:
            return
        worker, job = waiting.popleft()
        drawn = _answer_of(worker)
        # a reader that keeps many gets copies, so that slots to go on with are left
        hand_over = lender.lend if len(lender.free) + len(waiting) >= ahead else lender.copy
        yield Filled(hand_over(job.slot, samples.shape(job.draws)), job.draws, drawn)


def _first(jobs: Iterator[list[Draw]], count: int) -> Iterator[list[Draw]]:
    for _, draws in zip(range(count), jobs, strict=False):
        yield draws


def _send(worker: _Worker, message: Any) -> None:
    try:
        worker.connection.send(message)
    except OSError as error:
        raise _ended(worker) from error


def _answer_of(worker: _Worker) -> Drawn:
    try:
        answer = worker.connection.recv()
    except (EOFError, OSError) as error:
        raise _ended(worker) from error
    if isinstance(answer, UserError):
        raise answer
    if isinstance(answer, Crash):
        raise RuntimeError(f"a worker of the stream failed:\n{answer.text}")
    return answer


def _ended(worker: _Worker) -> UserError:
    code = worker.process.wait()
    how = f"signal {-code}; out of memory?" if code < 0 else f"exit code {code}"
    return UserError(
        f"process {worker.process.pid}, which read pictures for this rank, ended ({how}), so its samples would be "
        "missing; start again, perhaps with a smaller --dataloader_num_workers."
    )


def _start(samples: Samples, slots: Slots, running: contextlib.ExitStack) -> _Worker:
    """Starts a worker with an interpreter of its own: a fork of a process that runs threads can deadlock."""
    ours, theirs = Pipe()
    inherited = (theirs.fileno(), slots.descriptor)
    process = subprocess.Popen(
        [sys.executable, "-c", START, *map(str, inherited)],
        stdin=subprocess.DEVNULL,
        pass_fds=inherited,
        env={**KEEPS_MEMORY, **os.environ, "PYTHONPATH": os.pathsep.join(path or os.getcwd() for path in sys.path)},
    )
    theirs.close()
    worker = _Worker(process, ours)
    running.callback(_end, worker)
    _send(worker, Hello(samples, slots.count, slots.size))
    return worker


def _end(worker: _Worker) -> None:
    worker.connection.close()
    worker.process.kill()
    with contextlib.suppress(subprocess.TimeoutExpired):
        worker.process.wait(END_SECONDS)
