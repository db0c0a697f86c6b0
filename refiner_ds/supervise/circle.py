"""The circle of a job's wardens: a line from each to rank 0's, over which the end of one rank ends all.

Launchers do this on one host, some of them on several, none where a host falls silent.
"""

import contextlib
import hmac
import platform
import secrets
import socket
import time
from dataclasses import dataclass, replace
from typing import Protocol

from refiner_ds.supervise.ending import Ending, first_cause
from refiner_ds.supervise.wire import Wire

BEAT_SECONDS = 2.0
QUIET_SECONDS = 3 * BEAT_SECONDS
"""Silence that is worth telling when something else has failed."""
GRACE_SECONDS = 1.0
"""How long the first cause may come after the first that is told."""
GRACE_OF_CONSEQUENCES_SECONDS = 3.0
"""The same where all that is told are consequences."""
CONNECT_SECONDS = 5.0
GONE = "is gone without a word: its warden was killed, or its host has failed"


class Circle(Protocol):
    """One warden's place in the circle."""

    def turn(self) -> Ending | None:
        """Hears and speaks; what ended the job, once that is known. To be called several times a second."""

    def report(self, ending: Ending) -> None:
        """Tells that this warden's own rank has failed."""

    def leave(self) -> None:
        """Tells that this warden's own rank has come to a good end."""


@dataclass
class _Member:
    """A warden that the hub hears."""

    wire: Wire
    heard: float
    rank: int | None = None
    host: str = ""
    has_left: bool = False

    def ended(self, how: str) -> Ending:
        return Ending(self.rank or 0, self.host, how, is_untold=True)


class Hub:
    """Rank 0's place: it hears all others and tells them the end. Its port is open from the start.

    Attributes:
        port, token: what the others need to be let in.
    """

    def __init__(self) -> None:
        family = socket.AF_INET6 if socket.has_dualstack_ipv6() else socket.AF_INET
        address = ("", 0)
        self._listener = socket.create_server(
            address, family=family, dualstack_ipv6=family == socket.AF_INET6, backlog=1024
        )
        self._listener.setblocking(False)
        self.port: int = self._listener.getsockname()[1]
        self.token = secrets.token_hex(16)
        self.limit_seconds = float("inf")
        self._members: list[_Member] = []
        self._endings: list[Ending] = []
        self._decided_at = float("inf")
        self._beaten = 0.0

    def turn(self) -> Ending | None:
        """See `Circle.turn`."""
        self._let_in()
        now = time.monotonic()
        is_time = now - self._beaten >= BEAT_SECONDS
        self._beaten = now if is_time else self._beaten
        for member in self._members:
            self._hear(member, now)
            if is_time and not member.has_left:
                member.wire.send(beat=True)
        self._members = [member for member in self._members if not member.wire.is_closed]
        return self._decide(now)

    def report(self, ending: Ending) -> None:
        """See `Circle.report`."""
        self._endings.append(ending)
        grace = GRACE_OF_CONSEQUENCES_SECONDS if ending.is_consequence else GRACE_SECONDS
        self._decided_at = min(self._decided_at, time.monotonic() + grace)

    def leave(self) -> None:
        """See `Circle.leave`."""
        self._tell_all(bye=True)

    def _let_in(self) -> None:
        with contextlib.suppress(BlockingIOError):
            while True:
                connection, _ = self._listener.accept()
                self._members.append(_Member(Wire(connection), time.monotonic()))

    def _hear(self, member: _Member, now: float) -> None:
        for message in member.wire.receive():
            if member.rank is None:
                if not hmac.compare_digest(str(message.get("token")), self.token):
                    member.wire.close()  # a stranger, such as a scan of ports
                    return
                member.rank, member.host = int(message["rank"]), str(message["host"])
            member.heard = now
            if "failed" in message:
                member.has_left = True
                self.report(Ending.from_json(message["failed"]))
            member.has_left |= "bye" in message
        if member.rank is None or member.has_left:
            return
        if member.wire.is_closed:
            self.report(member.ended(GONE))
        elif now - member.heard > self.limit_seconds:
            member.has_left = True
            self.report(member.ended(_silence(now - member.heard)))

    def _decide(self, now: float) -> Ending | None:
        if now < self._decided_at:
            return None
        cause = first_cause(self._endings)
        if cause.is_consequence:  # nobody has told a cause: perhaps it is whoever cannot
            silent = [member for member in self._members if not member.has_left and now - member.heard > QUIET_SECONDS]
            if silent:
                quietest = min(silent, key=lambda member: member.heard)
                cause = quietest.ended(_silence(now - quietest.heard))
        self._tell_all(end=cause.as_json())
        return cause

    def _tell_all(self, **message: object) -> None:
        for member in self._members:
            member.wire.send(**message)


class Member:
    """Another rank's place: it hears rank 0's warden.

    Raises:
        OSError: that cannot be reached.
    """

    def __init__(self, rank: int, address: str, port: int, token: str, hub_host: str, limit_seconds: float) -> None:
        self._hub = Ending(0, hub_host, "", is_untold=True)
        self._limit_seconds = limit_seconds
        self._wire = Wire(socket.create_connection((address, port), CONNECT_SECONDS))
        self._wire.send(token=token, rank=rank, host=platform.node())
        self._heard = self._beaten = time.monotonic()
        self._is_over = False
        self._reported: tuple[Ending, float] | None = None

    def turn(self) -> Ending | None:
        """See `Circle.turn`."""
        now = time.monotonic()
        for message in self._wire.receive():
            self._heard = now
            if "end" in message:
                return Ending.from_json(message["end"])
            self._is_over |= "bye" in message
        if self._is_over:
            return None
        if self._reported:
            ending, at = self._reported
            waited = now - at > 2 * GRACE_OF_CONSEQUENCES_SECONDS
            return ending if waited or self._wire.is_closed else None
        if self._wire.is_closed:
            return replace(self._hub, how=GONE)
        if now - self._heard > self._limit_seconds:
            return replace(self._hub, how=_silence(now - self._heard))
        if now - self._beaten >= BEAT_SECONDS:
            self._beaten = now
            self._wire.send(beat=True)
        return None

    def report(self, ending: Ending) -> None:
        """See `Circle.report`."""
        self._reported = (ending, time.monotonic())
        self._is_over = False
        self._wire.send(failed=ending.as_json())

    def leave(self) -> None:
        """See `Circle.leave`."""
        self._wire.send(bye=True)


class Alone:
    """The place of a warden whose rank has not met the others yet, or that cannot reach rank 0's."""

    def __init__(self) -> None:
        self._ending: Ending | None = None

    def turn(self) -> Ending | None:
        """See `Circle.turn`."""
        return self._ending

    def report(self, ending: Ending) -> None:
        """See `Circle.report`."""
        self._ending = ending

    def leave(self) -> None:
        """Nobody to tell."""


def _silence(seconds: float) -> str:
    return f"has not been heard of for {seconds:.0f} s: its host or the network to it is down"
