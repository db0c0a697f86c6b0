"""Transfers: a range read to its end in as many attempts as it takes, and whole shards over several connections."""

import hashlib
import math
import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from refiner_ds.data.store.contract import Damaged, Stored
from refiner_ds.data.store.retry import Clock, IsStopped, Retry, Stopped, Transient, never, persevere
from refiner_ds.data.store.source import Source
from refiner_ds.errors import UserError

SPAN = 32 << 20
"""Bytes of a shard that one connection fetches before it takes the next ones."""
CONNECTIONS = 4

Sink = Callable[[int, bytes], None]
"""Takes bytes and where they belong."""


def spans_of(first: int, last: int, span: int) -> list[tuple[int, int]]:
    """(first byte, size) of consecutive pieces that cover first <= byte < last, each of `span` bytes but the last."""
    return [(start, min(span, last - start)) for start in range(first, last, span)]


def transfer(
    source: Source, name: str, first: int, size: int, sink: Sink, retry: Retry, is_stopped: IsStopped = never
) -> None:
    """Reads exactly `size` bytes; an attempt goes on where the one before broke off.

    Raises:
        UserError: they cannot be had.
        Stopped: it was called off.
    """
    clock = Clock(retry.allowance(size), is_stopped)
    done = 0

    def attempt() -> None:
        nonlocal done
        for block in source.stream(name, first + done, size - done):
            sink(first + done, block)
            done += len(block)
            if done < size:  # what is complete is not too late
                clock.check()
        if done < size:
            raise Transient(f"only {done} of {size} bytes came")

    persevere(attempt, f"{source.label(name)}, bytes {first}-{first + size - 1},", retry, clock)


def download(
    source: Source,
    shard: Stored,
    descriptor: int,
    retry: Retry,
    is_stopped: IsStopped,
    progress: Callable[[int], None],
) -> None:
    """Writes a whole shard into a file and checks its sha256, again from the start where that is wrong.

    Args:
        progress: told how many bytes have come, from any thread.

    Raises:
        Damaged: it has another sha256 each time.
        UserError: it cannot be had.
        Stopped: it was called off.
    """

    def attempt() -> None:
        _fill(source, shard, descriptor, retry, is_stopped, progress)
        if (found := sha256_of(descriptor, shard.bytes)) != shard.sha256:
            raise _OtherBytes(f"its sha256 is {found[:16]}... where the index says {shard.sha256[:16]}...")

    clock = Clock(math.inf, is_stopped)  # each span has its own limit of time
    try:
        persevere(attempt, f"{source.label(shard.name)}", retry, clock, retry.digest_attempts)
    except UserError as error:
        if isinstance(error.__cause__, _OtherBytes):
            raise Damaged(str(error)) from error
        raise


class _OtherBytes(Transient):
    """A whole file came, and not the one that the index knows."""


def _fill(
    source: Source,
    shard: Stored,
    descriptor: int,
    retry: Retry,
    is_stopped: IsStopped,
    progress: Callable[[int], None],
) -> None:
    """One pass over a shard. A server without ranges sends all of it over one connection."""
    lock, done = threading.Lock(), 0
    abandoned = threading.Event()  # one failed span ends the others

    def sink(offset: int, block: bytes) -> None:
        nonlocal done
        _write(descriptor, offset, block)
        with lock:
            done += len(block)
            progress(done)

    def fetch(span: tuple[int, int]) -> None:
        try:
            transfer(source, shard.name, *span, sink, retry, lambda: is_stopped() or abandoned.is_set())
        except BaseException:
            abandoned.set()
            raise

    rest = 0
    if source.has_ranges is None and shard.bytes > SPAN:
        fetch((0, SPAN))
        rest = SPAN
    if not source.has_ranges:
        fetch((rest, shard.bytes - rest))
        return
    with ThreadPoolExecutor(CONNECTIONS, "download") as pool:
        futures = [pool.submit(fetch, span) for span in spans_of(rest, shard.bytes, SPAN)]
    failures = [failure for future in futures if (failure := future.exception())]
    # what a failure called off is no cause
    for failure in sorted(failures, key=lambda error: isinstance(error, Stopped)):
        raise failure


def _write(descriptor: int, offset: int, block: bytes) -> None:
    view = memoryview(block)
    while view:
        written = os.pwrite(descriptor, view, offset)
        view, offset = view[written:], offset + written


def sha256_of(descriptor: int, size: int) -> str:
    """The sha256, in hex digits, of the first `size` bytes of an open file; of fewer where it is shorter."""
    digest, offset = hashlib.sha256(), 0
    while block := os.pread(descriptor, min(1 << 22, size - offset), offset):
        digest.update(block)
        offset += len(block)
    return digest.hexdigest()
