"""What the facts of the hosts mean: pure functions from facts to lines of the table."""

from collections.abc import Iterator, Mapping
from typing import Any

from refiner_ds.doctor.hosts import Clock
from refiner_ds.doctor.lines import ALL, Line, State, differences, from_sentence
from refiner_ds.units import size_text
from refiner_ds.versions import PACKAGES

TRAINED_WITH = ("python", "refiner_ds", *PACKAGES)
"""Versions that training itself compares before it loads a model."""
AHEAD_WARN_SECONDS, AHEAD_FAIL_SECONDS = 1.0, 60.0
USED_BYTES = 1 << 30
"""GPU memory in use from which another program is likely to be running there."""

Facts = Mapping[str, Any]


def check_versions(versions: Mapping[str, dict[str, str]]) -> Iterator[Line]:
    """Red where a package differs that training compares, yellow for the others."""
    if not versions:
        return
    first, *others = versions
    of_first = versions[first]
    if missing := [name for name in TRAINED_WITH if of_first.get(name) == "none"]:
        yield Line("versions", first, "fail", f"{', '.join(missing)} is not installed", "install refiner_ds anew there")
    for host in others:
        differing = [name for name in of_first if versions[host].get(name) != of_first[name]]
        for name in differing:
            state: State = "fail" if name in TRAINED_WITH else "warn"
            text = f"{name} {versions[host].get(name)}, and {first} has {of_first[name]}"
            yield Line("versions", host, state, text, f"install the same {name} on all hosts")
        if not differing:
            yield Line("versions", host, "ok", _told(of_first))
    yield Line("versions", first, "ok", _told(of_first))


def _told(versions: Mapping[str, str]) -> str:
    return ", ".join(f"{name} {versions[name]}" for name in TRAINED_WITH)


def check_devices(devices: Mapping[str, Facts], slots: Mapping[str, int], is_local: bool) -> Iterator[Line]:
    """GPUs and their memory, against the slots of the hostfile and among each other."""
    for host, facts in devices.items():
        gpus, wanted = facts["gpus"], slots[host]
        cores = f"{facts['cores']} cores, {size_text(facts['memory_bytes'])} of memory"
        if not gpus:
            if any(other["gpus"] for other in devices.values()):
                yield Line("devices", host, "fail", f"no GPU, and other hosts have some; {cores}",
                           "mend its driver (`nvidia-smi` there), or take the host out of the hostfile")  # fmt: skip
            elif wanted > facts["cores"]:
                yield Line("devices", host, "warn", f"{wanted} slots, and no GPU but {cores}: ranks share cores",
                           f"write slots={facts['cores']}")  # fmt: skip
            else:
                yield Line("devices", host, "ok", f"no GPU; {cores}")
            continue
        told = f"{len(gpus)} x {gpus[0]['name']}, {size_text(min(gpu['bytes'] for gpu in gpus))} each; {cores}"
        if wanted > len(gpus):
            yield Line("devices", host, "fail", f"slots={wanted}, and a rank needs a GPU of its own: {told}",
                       f"write slots={len(gpus)} for {host} in the hostfile")  # fmt: skip
        elif wanted < len(gpus) and not is_local:
            yield Line("devices", host, "warn", f"slots={wanted} leaves {len(gpus) - wanted} GPUs idle: {told}",
                       f"write slots={len(gpus)} to use them")  # fmt: skip
        else:
            yield Line("devices", host, "ok", told)
        if busy := [index for index, used in enumerate(facts["used_bytes"]) if used > USED_BYTES]:
            yield Line("devices", host, "warn", f"another program holds memory of GPU {', '.join(map(str, busy))}",
                       "see `nvidia-smi` there, and end what is left over")  # fmt: skip
    with_gpus = {host: facts for host, facts in devices.items() if facts["gpus"]}
    remedy = "all ranks go at the pace of the slowest, with the micro-batch of the smallest"
    yield from differences("devices", with_gpus, _kinds, remedy, "warn")


def _kinds(facts: Facts) -> str:
    """The kinds of GPUs of a host."""
    return ", ".join(sorted({f"{gpu['name']} {size_text(gpu['bytes'])}" for gpu in facts["gpus"]}))


def check_driver(devices: Mapping[str, Facts]) -> Iterator[Line]:
    """The driver sees what torch sees, and is the same everywhere."""
    seen = {host: facts for host, facts in devices.items() if facts["driver"] or facts["gpus"]}
    for host, facts in seen.items():
        told = f"driver {facts['driver']}, torch for CUDA {facts['cuda']}, NCCL {facts['nccl']}"
        if facts["driver_gpus"] and not facts["gpus"]:
            yield Line("driver", host, "fail", f"the driver sees {facts['driver_gpus']} GPUs and torch none: {told}",
                       "install a torch whose CUDA this driver knows, or unset CUDA_VISIBLE_DEVICES")  # fmt: skip
        else:
            yield Line("driver", host, "ok", told)
    yield from differences(
        "driver", seen, lambda facts: f"driver {facts['driver']}", "install the same driver on all hosts", "warn"
    )


def check_network(network: Mapping[str, Facts]) -> Iterator[Line]:
    """Each host's own name, and the interface that its ranks take."""
    for host, facts in network.items():
        own, name = facts["own_address"], facts["name"]
        if not own:
            yield Line("host name", host, "warn", f"{name} does not resolve there",
                       f"add a line with its address and {name} to /etc/hosts there")  # fmt: skip
        elif own.startswith("127.") and len(network) > 1:
            yield Line("host name", host, "warn",
                       f"{name} resolves to {own} there, where other hosts cannot connect (training goes around that)",
                       f"write the host's own address for {name} into /etc/hosts there")  # fmt: skip
        else:
            yield Line("host name", host, "ok", f"{name} is {own} there")
        if facts["no_interface"]:
            yield from_sentence("interface", host, facts["no_interface"])
        elif facts["interface"]:
            nccl = f", NCCL {facts['nccl']}" if facts["nccl"] else ""
            yield Line("interface", host, "ok", f"gloo takes {facts['interface']}{nccl}")
        if facts["no_nccl"]:
            yield from_sentence("interface", host, facts["no_nccl"])


def check_pairs(faults: Mapping[str, Mapping[str, str]]) -> Iterator[Line]:
    """Every host gets through to every other one, by the name that the hostfile gives it."""
    for host, of_host in faults.items():
        for other, why in of_host.items():
            remedy = f"let {host} resolve {other} to its address, and open all TCP ports between the hosts"
            yield Line("reachability", host, "fail", f"does not get through to {other}: {why}", remedy)
        if not of_host:
            yield Line("reachability", host, "ok", f"gets through to {len(faults) - 1} other hosts")


def check_clocks(clocks: Mapping[str, Clock]) -> Iterator[Line]:
    """How far the hosts' clocks are from the first one's."""
    if not clocks:
        return
    origin = next(iter(clocks.values()))
    for host, clock in clocks.items():
        ahead, unsure = clock.ahead - origin.ahead, clock.uncertainty + origin.uncertainty
        off = max(abs(ahead) - unsure, 0.0)
        text = f"{abs(ahead):.2f} s {'ahead of' if ahead > 0 else 'behind'} {next(iter(clocks))} (+-{unsure:.2f})"
        if off > AHEAD_WARN_SECONDS:
            state: State = "fail" if off > AHEAD_FAIL_SECONDS else "warn"
            yield Line("clock", host, state, text, "let chrony or another NTP client set the clocks of all hosts")
        else:
            yield Line("clock", host, "ok", f"within {abs(ahead) + unsure:.2f} s of the first host's")


def check_same(check: str, said: Mapping[str, Any], told: str, remedy: str) -> Iterator[Line]:
    """Each host's shards or base: there, whole, and the first host's by their digest.

    Args:
        told: what the answers are called, with their own names in braces.
    """
    answers = {host: answer for host, answer in said.items() if isinstance(answer, dict)}
    differing = list(differences(check, answers, lambda answer: f"{check} {answer['digest']}", remedy))
    for host, answer in said.items():
        if host not in answers:
            yield from_sentence(check, host, str(answer))
        elif host not in {line.host for line in differing}:
            yield Line(check, host, "ok", told.format(**answer))
    yield from differing


def check_base(base: str, said: Mapping[str, Any]) -> Iterator[Line]:
    """Each host's base, of which a hub id may be yet to be downloaded: by all of them, or by those that lack it."""
    to_come = [host for host, answer in said.items() if isinstance(answer, dict) and answer["digest"] is None]
    remedy = "download it before, e.g. by `hf download`, into a HF_HOME that all hosts share"
    for host in to_come:
        if len(to_come) == len(said):
            yield Line("base", host, "warn", f"{base} is yet to be downloaded, by every host", remedy)
        else:
            yield Line("base", host, "fail", f"{base} is yet to be downloaded there, and other hosts have it", remedy)
    others = {host: answer for host, answer in said.items() if host not in to_come}
    yield from check_same("base", others, "whole, digest {digest}", "put the same base where all hosts see it")


def check_compiler(compilers: Mapping[str, Facts], has_gpus: bool) -> Iterator[Line]:
    """What DeepSpeed's just-in-time ops are compiled with; nothing that we configure needs them, so never red."""
    remedy = "none of ds_configs/ needs it; for DeepSpeed's own ops (FusedAdam, CPUAdam): "
    for host, facts in compilers.items():
        if facts["fault"]:
            yield Line("compiler", host, "warn", f"{facts['name']} does not compile C++ with Python's headers: "
                       f"{facts['fault']}", remedy + "apt install g++ python3-dev, or set CXX")  # fmt: skip
        elif not facts["ninja"]:
            yield Line("compiler", host, "warn", f"{facts['name']} works, and ninja is missing",
                       remedy + "pip install ninja")  # fmt: skip
        elif has_gpus and not facts["nvcc"]:
            yield Line("compiler", host, "warn", f"{facts['name']} works, and nvcc is missing",
                       remedy + "install the CUDA toolkit of torch's version, and set CUDA_HOME")  # fmt: skip
        else:
            yield Line("compiler", host, "ok", f"{facts['name']} and ninja{' and nvcc' if facts['nvcc'] else ''}")


def check_port(host: str, port: int, fault: str | None) -> Line:
    """The port on which the ranks meet, on the host of rank 0."""
    if fault is None:
        return Line("master port", host, "ok", f"{port} is free")
    return Line("master port", host, "fail", f"{port} cannot be taken: {fault}",
                f"end what holds it (`ss -ltnp 'sport = :{port}'` there), or give another --master_port")  # fmt: skip


def check_mlflow(host: str, answer: Any) -> Line:
    """Whether MLflow took a run of the host of rank 0."""
    if answer is None:
        return Line("mlflow", host, "ok", "took a run, and deleted it again")
    return Line("mlflow", host, "fail", str(answer).rstrip("."),
                "start the server, or give another --tracking_uri; its password belongs into ~/.mlflow/credentials "
                "(training itself would go on, and send everything later)")  # fmt: skip


def check_folder(without: list[str] | str, first: str, count: int) -> Iterator[Line]:
    """Whether the output folder is one and the same on all hosts."""
    if isinstance(without, str):
        yield from_sentence("output folder", first, without)
        return
    for host in without:
        remedy = "put --output_dir onto a disk that all hosts share, as each rank saves its part of a checkpoint"
        yield Line("output folder", host, "fail", f"does not see what {first} puts into it: it is another one", remedy)
    if not without and count > 1:
        yield Line("output folder", ALL, "ok", "shared by all hosts")
