"""The course of an examination: asks the hosts one thing after the other, each of all at once, and lists the lines."""

import socket
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from refiner_ds.doctor import checks, needs
from refiner_ds.doctor.environment import check_environment
from refiner_ds.doctor.hosts import HostFailure, Hosts, Refusal
from refiner_ds.doctor.lines import ALL, Line
from refiner_ds.doctor.network import Reduced, all_reduce, hosts_without_folder, pair_faults
from refiner_ds.estimate.disk import checkpoint_bytes
from refiner_ds.units import size_text

ASK_SECONDS, READ_SECONDS, MLFLOW_SECONDS = 120.0, 300.0, 120.0
SLOW_BYTES_PER_S = 125e6
"""An all-reduce between hosts below 1 Gb/s makes every step wait."""


@dataclass(frozen=True)
class Asked:
    """What is to be looked at beside the hosts themselves; None leaves it out."""

    shards: str | None
    output_dir: str | None
    base: str | None
    revision: str | None
    variant: str | None
    tracking_uri: str | None
    experiment: str
    port: int
    has_average: bool
    checkpoint_size: int | None
    checkpoints: int | None
    config: dict[str, Any]
    micro_batch_size: int | None
    accumulation_steps: int | None
    asks_batch: bool
    environment: dict[str, str]


@dataclass
class Survey:
    """One examination. `lines` is what it has found so far."""

    hosts: Hosts
    asked: Asked
    is_local: bool
    lines: list[Line] = field(default_factory=list)
    _facts: dict[str, dict[str, Any]] = field(default_factory=dict)
    _is_port_free: bool = True

    def run(self) -> list[Line]:
        """Looks at everything."""
        self._describe()
        for part in (self._clocks, self._port, self._data, self._disk, self._mlflow, self._network, self._batch):
            if self.hosts.there:
                part()
        self._add(check_environment(self.asked.environment))
        reached = [Line("host", host.name, "ok", "answers") for host in self.hosts.there]
        gone = [Line("host", host.name, "fail", host.fault, host.remedy) for host in self.hosts.all if host.fault]
        return [*gone, *reached, *self.lines]

    @property
    def _master(self) -> str:
        """Where the ranks would meet: the hostfile's first host, or else the first one that answers."""
        if self.is_local:
            return "127.0.0.1"
        return self.hosts.there[0].name.rpartition("@")[2]

    def _of(self, part: str) -> dict[str, Any]:
        return {name: facts[part] for name, facts in self._facts.items()}

    def _describe(self) -> None:
        master = None if self.is_local else self.hosts.all[0].name.rpartition("@")[2]
        answers = self.hosts.ask("describe", ASK_SECONDS, master=master)
        self._facts = {name: answer for name, answer in answers.items() if not isinstance(answer, Refusal)}
        for name, answer in answers.items():
            if isinstance(answer, Refusal):
                self._add([Line("host", name, "fail", f"cannot tell about itself: {answer}", "mend what it says")])
        devices = self._of("devices")
        self._add(checks.check_versions(self._of("versions")))
        self._add(checks.check_devices(devices, {host.name: self._ranks(host.name) for host in self.hosts.all},
                                       self.is_local))  # fmt: skip
        self._add(checks.check_driver(devices))
        self._add(checks.check_network(self._of("network")))
        self._add(checks.check_compiler(self._of("compiler"), any(facts["gpus"] for facts in devices.values())))

    def _ranks(self, name: str) -> int:
        """Ranks that a launcher would start there: the slots, or here one for each GPU."""
        if self.is_local:
            return max(1, len(self._facts[name]["devices"]["gpus"])) if name in self._facts else 1
        return next(host.slots for host in self.hosts.all if host.name == name)

    def _clocks(self) -> None:
        clocks = self.hosts.each(lambda host: host.clock())
        if len(clocks) > 1:
            self._add(checks.check_clocks(clocks))

    def _port(self) -> None:
        first = self.hosts.there[0]
        fault = self._ask_one("port_fault", ASK_SECONDS, port=self.asked.port)
        self._is_port_free = fault is None
        self._add([checks.check_port(first.name, self.asked.port, None if fault is None else str(fault))])

    def _data(self) -> None:
        if self.asked.shards:
            said = self.hosts.ask("shards", READ_SECONDS, location=self.asked.shards)
            told = "{samples} samples in {shards} shards, digest {digest}"
            self._add(checks.check_same("shards", said, told, "copy the shards of one host to all, or share a folder"))

    def _disk(self) -> None:
        size = self.asked.checkpoint_size
        if self.asked.base:
            arguments = {"name": self.asked.base, "revision": self.asked.revision, "variant": self.asked.variant}
            said = self.hosts.ask("base", READ_SECONDS, **arguments)
            self._add(checks.check_base(self.asked.base, said))
            trained = [of["parameters"] for of in said.values() if isinstance(of, dict) and of["parameters"]]
            if size is None and trained:
                size = checkpoint_bytes(trained[0], self.asked.has_average)
        if self.asked.output_dir and self.hosts.there:
            disks = self.hosts.ask("disk", ASK_SECONDS, output_dir=self.asked.output_dir)
            self._add(needs.check_disk(disks, size, self.asked.checkpoints))
            if len(self.hosts.there) > 1 and all(isinstance(answer, dict) for answer in disks.values()):
                self._folder(self.asked.output_dir)

    def _folder(self, output_dir: str) -> None:
        first, count = self.hosts.there[0].name, len(self.hosts.there)
        try:
            self._add(checks.check_folder(hosts_without_folder(self.hosts, output_dir), first, count))
        except (HostFailure, Refusal) as error:
            self._add([Line("output folder", first, "fail", f"its marker could not be taken away: {error}",
                            f"remove .refiner-ds-doctor-* from {output_dir}")])  # fmt: skip

    def _mlflow(self) -> None:
        if self.asked.tracking_uri:
            arguments = {"uri": self.asked.tracking_uri, "experiment": self.asked.experiment}
            name = self.hosts.there[0].name
            answer = self._ask_one("mlflow", 2 * MLFLOW_SECONDS, **arguments, patience=MLFLOW_SECONDS)
            self._add([checks.check_mlflow(name, answer)])

    def _ask_one(self, question: str, seconds: float, **arguments: Any) -> Any:
        """The answer of rank 0's host, or why there is none."""
        try:
            return self.hosts.there[0].ask(question, seconds, **arguments)
        except (HostFailure, Refusal) as error:
            return error

    def _network(self) -> None:
        if len(self.hosts.there) > 1:
            self._add(checks.check_pairs(pair_faults(self.hosts)))
        devices = self._of("devices")
        names = [host.name for host in self.hosts.there if host.name in devices]
        if not names or len(names) < len(self.hosts.there):
            return
        if any(line.check == "interface" and line.state == "fail" for line in self.lines):
            return  # it says already why ranks cannot meet
        has_gpus = all(devices[name]["gpus"] for name in names)
        alone = 2 if len(names) == 1 and not has_gpus else 1
        ranks = {name: min(self._ranks(name), len(devices[name]["gpus"])) if has_gpus else alone for name in names}
        interfaces = {name: facts["interface"] for name, facts in self._of("network").items()}
        if self.is_local:
            interfaces = dict.fromkeys(names, interfaces[names[0]] or _loopback())
        port = self.asked.port if self._is_port_free else self._ask_one("free_port", ASK_SECONDS)
        done = all_reduce(self.hosts, ranks, "nccl" if has_gpus else "gloo", self._master, int(port), interfaces)
        self._add(_reduced_lines(done, len(names)))

    def _batch(self) -> None:
        if self.asked.asks_batch:
            ranks = sum(self._ranks(host.name) for host in self.hosts.all)
            of_config = (self.asked.config, self.asked.micro_batch_size, self.asked.accumulation_steps)
            self._add([needs.check_batch(*of_config, ranks)])

    def _add(self, lines: Any) -> None:
        self.lines += lines


def _loopback() -> str | None:
    """This machine's loopback, by which ranks of one host meet whatever its own name resolves to."""
    return next((name for _, name in socket.if_nameindex() if name.startswith("lo")), None)


def _reduced_lines(done: Reduced, num_hosts: int) -> Iterator[Line]:
    if done.faults:
        remedy = (
            "mend what is red of interface, reachability and driver; else set GLOO_SOCKET_IFNAME and "
            "NCCL_SOCKET_IFNAME on all hosts to the interface that leads to the others"
        )
        for name, fault in done.faults.items():
            yield Line("all-reduce", name, "fail", fault.rstrip("."), remedy)
        return
    told = f"{done.backend}, {done.ranks} ranks: {size_text(done.size)} in {1000 * done.seconds:.1f} ms"
    if done.ranks == 1:
        yield Line("all-reduce", ALL, "ok", told)
        return
    rate = done.bus_bytes_per_s
    told += f", {size_text(rate)}/s by each link ({8 * rate / 1e9:.1f} Gb/s)"
    if num_hosts > 1 and rate < SLOW_BYTES_PER_S:
        yield Line("all-reduce", ALL, "warn", told, "name the fast interface in GLOO_SOCKET_IFNAME and "
                   "NCCL_SOCKET_IFNAME on all hosts, or expect every step to wait for the network")  # fmt: skip
    else:
        yield Line("all-reduce", ALL, "ok", told)
