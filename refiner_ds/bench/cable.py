"""Two hosts of a bench: network namespaces of this machine, joined by a cable of limited rate in each direction."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

from refiner_ds.errors import UserError

PROGRAMS = ("unshare", "nsenter", "ip", "tc")
NETWORK = "10.78.0"
CARD, LOOPBACK = "net0", "lo"
BURST, QUEUE = "256kb", "400ms"
"""Of the token bucket that limits the rate (tc-tbf): what passes at once, and how long a packet may wait."""
HELD = "echo ready; exec cat"
"""What holds a network: it ends with the pipe that it reads, however the bench ends."""


@dataclass(frozen=True)
class Host:
    """Where a rank runs: the words that start a command there, its network card, and its address."""

    words: tuple[str, ...]
    card: str
    address: str


def loopback(ranks: int) -> list[Host]:
    """This machine, for each of so many ranks."""
    return [Host((), LOOPBACK, "127.0.0.1")] * ranks


@contextmanager
def cable(megabits: int) -> Iterator[list[Host]]:
    """Yields two hosts, which end with the block; each sends at most so many megabits per second to the other.

    Raises:
        UserError: this machine cannot make them.
    """
    missing = [name for name in PROGRAMS if not shutil.which(name, path=_path())]
    if os.geteuid() or missing:
        lack = f"{' and '.join(missing)} cannot be found" if missing else "only root can do that"
        raise UserError(
            f"--link {megabits} joins two network namespaces by a limited cable, and {lack}; start it as root where "
            "util-linux and iproute2 are installed, or leave --link out to measure over loopback."
        )
    with ExitStack() as stack:
        pids = [stack.enter_context(_namespace()) for _ in range(2)]
        hosts = [
            Host(("nsenter", f"--target={pid}", "--net", "--"), CARD, f"{NETWORK}.{number}")
            for number, pid in enumerate(pids, 1)
        ]
        one, other = pids
        _do("ip", "link", "add", "name", CARD, "netns", one, "type", "veth", "peer", "name", CARD, "netns", other)
        for host in hosts:
            _do(*host.words, "ip", "link", "set", LOOPBACK, "up")
            _do(*host.words, "ip", "address", "add", f"{host.address}/24", "dev", CARD)
            _do(*host.words, "ip", "link", "set", CARD, "up")
            limit = ("tbf", "rate", f"{megabits}mbit", "burst", BURST, "latency", QUEUE)
            _do(*host.words, "tc", "qdisc", "add", "dev", CARD, "root", *limit)
        yield hosts


@contextmanager
def _namespace() -> Iterator[str]:
    """Yields the process id of what holds a network of its own."""
    command, pipe = ["unshare", "--net", "sh", "-c", HELD], subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, env=_environment()) as held:
        try:
            assert held.stdout
            held.stdout.readline()  # its network is there
            yield str(held.pid)
        finally:
            held.kill()


def _do(*words: str) -> None:
    done = subprocess.run(words, capture_output=True, text=True, env=_environment())
    if done.returncode:
        raise UserError(
            f"--link cannot be made here: `{' '.join(words)}` says {done.stderr.strip()!r}; leave --link out to "
            "measure over loopback."
        )


def _environment() -> dict[str, str]:
    return {**os.environ, "PATH": _path()}


def _path() -> str:
    """Where the programs lie for root, whose shell may not say so."""
    return f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"
