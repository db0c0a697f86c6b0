"""A worker of the stream: a process that fills slots with pictures, and ends with the one that started it.

It imports no torch, so that it starts in a fraction of a second and is small.
"""

import os
import queue
import sys
import threading
import traceback
from dataclasses import dataclass
from multiprocessing.connection import Connection

from refiner_ds.data.order import Draw
from refiner_ds.data.samples import Drawn, Samples
from refiner_ds.data.workers.slots import Slots
from refiner_ds.errors import UserError


@dataclass(frozen=True)
class Hello:
    """What a worker is told first: the samples, and the memory that it shares."""

    samples: Samples
    num_slots: int
    slot_bytes: int


@dataclass(frozen=True)
class Job:
    """A micro-batch to fill into a slot."""

    slot: int
    draws: list[Draw]


@dataclass(frozen=True)
class Crash:
    """The traceback of a fault of this program."""

    text: str


Answer = Drawn | UserError | Crash


def main() -> None:
    """Answers jobs one by one, in their order, until the other end of the connection is closed."""
    descriptor, memory = map(int, sys.argv[1:])
    connection = Connection(descriptor)
    hello: Hello = connection.recv()
    slots = Slots(hello.num_slots, hello.slot_bytes, memory)
    jobs: queue.SimpleQueue[Job] = queue.SimpleQueue()
    threading.Thread(target=_receive, args=(connection, jobs), daemon=True).start()
    while True:
        connection.send(_answer(hello.samples, slots, jobs.get()))


def _receive(connection: Connection, jobs: "queue.SimpleQueue[Job]") -> None:
    """Takes in jobs; without a parent there is nothing to wait for, not even a download."""
    try:
        while True:
            jobs.put(connection.recv())
    except (EOFError, OSError):
        os._exit(0)


def _answer(samples: Samples, slots: Slots, job: Job) -> Answer:
    try:
        return samples.fill(job.draws, slots.array(job.slot, samples.shape(job.draws)))
    except UserError as error:
        return error
    except Exception:
        return Crash(traceback.format_exc())
