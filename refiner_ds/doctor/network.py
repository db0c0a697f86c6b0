"""What the hosts do together: they reach each other in pairs, share a folder or not, and reduce a tensor."""

import uuid
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

from refiner_ds.doctor.hosts import Host, Hosts, Refusal

MEETING_SECONDS = 60.0
"""How long ranks of the all-reduce wait for each other."""
GLOO_BYTES, NCCL_BYTES = 1 << 24, 1 << 28
MARKER_SECONDS = 5.0


def pair_faults(hosts: Hosts) -> dict[str, dict[str, str]]:
    """By host those that it does not get through to, and why: each connects to a port of every other one."""
    tokens = {host.name: uuid.uuid4().hex for host in hosts.there}
    ports = hosts.each(lambda host: host.ask("open_door", 30, token=tokens[host.name]))
    doors = {name: (port, tokens[name]) for name, port in ports.items() if not isinstance(port, Refusal)}

    def look(host: Host) -> Any:
        others = {name: door for name, door in doors.items() if name != host.name}
        return host.ask("unreachable", 30 + len(others), targets=others)

    found = hosts.each(look)
    return {name: {"": str(faults)} if isinstance(faults, Refusal) else faults for name, faults in found.items()}


def hosts_without_folder(hosts: Hosts, output_dir: str) -> list[str] | str:
    """The hosts that do not see what the first one has put into the output folder; a sentence where that failed."""
    first, *others = hosts.there
    name = f".refiner-ds-doctor-{uuid.uuid4().hex}"
    try:
        made = first.ask("put_marker", 60, output_dir=output_dir, name=name)
    except Refusal as refusal:
        return str(refusal)
    try:
        seen = hosts.each(
            lambda host: host.ask("see_marker", 60, output_dir=output_dir, name=name, patience=MARKER_SECONDS), others
        )
    finally:
        first.ask("take_marker", 60, output_dir=output_dir, name=name, made=made)
    return [name for name, is_there in seen.items() if is_there is not True]


@dataclass(frozen=True)
class Reduced:
    """An all-reduce: backend, number of ranks, bytes of the tensor, seconds; or what went wrong, by host."""

    backend: str
    ranks: int
    size: int
    seconds: float = 0.0
    faults: dict[str, str] | None = None

    @property
    def bus_bytes_per_s(self) -> float:
        """What each rank's link carries: 2 (n - 1) / n bytes of each byte reduced (nccl-tests, PERFORMANCE.md)."""
        return 2 * (self.ranks - 1) / self.ranks * self.size / self.seconds


def all_reduce(
    hosts: Hosts, ranks_of: dict[str, int], backend: str, master: str, port: int, interfaces: dict[str, str | None]
) -> Reduced:
    """A real one over all hosts that are there, with `ranks_of` ranks on each."""
    there = hosts.there
    counts = [ranks_of[host.name] for host in there]
    starts = [0, *accumulate(counts)]
    ranks = {host.name: list(range(start, start + n)) for host, start, n in zip(there, starts, counts, strict=False)}
    size = NCCL_BYTES if backend == "nccl" else GLOO_BYTES
    found = hosts.each(
        lambda host: host.ask(
            "all_reduce",
            3 * MEETING_SECONDS,
            backend=backend,
            size=size,
            patience=MEETING_SECONDS,
            ranks=ranks[host.name],
            world=starts[-1],
            master=master,
            port=port,
            interface=interfaces.get(host.name),
        )
    )
    faults = {name: str(answer) for name, answer in found.items() if isinstance(answer, Refusal)}
    faults |= {host.name: host.fault for host in there if host.fault}
    if faults:
        return Reduced(backend, starts[-1], size, faults=faults)
    return Reduced(backend, starts[-1], size, next(iter(found.values())))
