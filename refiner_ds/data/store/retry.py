"""Trying again: how long to wait, when to give up, and in which words."""

import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from refiner_ds.errors import UserError

Result = TypeVar("Result")

IsStopped = Callable[[], bool]
"""Whether the work was called off."""

STOP_SECONDS = 0.1
"""How often one who waits looks whether it was."""


@dataclass(frozen=True)
class Retry:
    """When to try again, in seconds. Half of every wait is left to chance, so that the ranks of a job spread out."""

    first_wait: float = 0.5
    longest_wait: float = 30.0
    deadline: float = 300.0
    """From the first attempt on; a transfer may take this much longer than at `slowest_rate`, and no more."""
    slowest_rate: float = 100_000.0
    """Bytes per second."""
    digest_attempts: int = 3
    """Whole downloads of a shard whose sha256 is wrong."""

    def wait_before(self, attempt: int, chance: float) -> float:
        """Seconds to wait before attempt 1, 2, ..., doubling up to the longest; `chance` is drawn from [0, 1)."""
        full = self.first_wait * 2.0 ** min(attempt - 1, 60)
        return min(full, self.longest_wait) * (0.5 + 0.5 * chance)

    def allowance(self, size: int) -> float:
        """Seconds in all for the transfer of `size` bytes."""
        return self.deadline + size / self.slowest_rate


class Transient(Exception):
    """What may be well the next time: a cause in words, and how many seconds the server asks to wait."""

    def __init__(self, cause: str, retry_after: float = 0.0) -> None:
        super().__init__(cause)
        self.retry_after = retry_after


class Refused(Exception):
    """What will be no better the next time, in words that follow a file's address and end with the remedy."""


class Stopped(Exception):
    """The work was called off."""


def never() -> bool:
    """For work that nobody calls off."""
    return False


class Clock:
    """The time that one transfer has: the seconds of its allowance, and who can call it off."""

    def __init__(self, seconds: float, is_stopped: IsStopped = never) -> None:
        self.seconds, self.is_stopped = seconds, is_stopped
        self._started = time.monotonic()

    @property
    def spent(self) -> float:
        """Seconds since it began."""
        return time.monotonic() - self._started

    @property
    def left(self) -> float:
        """Seconds until the deadline."""
        return self.seconds - self.spent

    def check(self) -> None:
        """To be called while bytes come in.

        Raises:
            Stopped: it was called off.
            Transient: it takes too long.
        """
        if self.is_stopped():
            raise Stopped
        if self.left < 0:
            raise Transient(f"{self.seconds:.0f} s were not enough")

    def sleep(self, seconds: float) -> None:
        """Waits.

        Raises:
            Stopped: it was called off meanwhile.
        """
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            if self.is_stopped():
                raise Stopped
            time.sleep(min(left, STOP_SECONDS))


def persevere(
    action: Callable[[], Result], what: str, retry: Retry, clock: Clock, most_attempts: int | None = None
) -> Result:
    """The result of an action, which is tried again while it raises Transient.

    Args:
        what: names the file and range in errors.
        most_attempts: gives up after this many, however much time is left.

    Raises:
        UserError: it was refused, or the time or the attempts are used up.
        Stopped: it was called off.
    """
    attempt = 0
    while True:
        attempt += 1
        try:
            return action()
        except Refused as refusal:
            raise UserError(f"{what} {refusal}") from refusal
        except Transient as failure:
            wait = max(retry.wait_before(attempt, random.random()), failure.retry_after)
            if wait > clock.left or attempt == most_attempts:
                raise _given_up(what, attempt, clock, failure) from failure
        clock.sleep(wait)


def _given_up(what: str, attempts: int, clock: Clock, failure: Transient) -> UserError:
    tries = "1 attempt" if attempts == 1 else f"{attempts} attempts"
    asked = f", and asks to wait {failure.retry_after:.0f} s more" if failure.retry_after > max(clock.left, 0) else ""
    return UserError(
        f"{what} could not be read in {tries} over {clock.spent:.0f} s, "
        f"the last time because {failure}{asked}; see that the store and the network are well and that nobody changed "
        "the file, then start the same command again."
    )
