"""What one host says of itself, as plain values that travel as JSON; judging them is for checks.py."""

import os
import platform
import shutil
import socket
import subprocess
import sysconfig
import uuid
from pathlib import Path
from typing import Any

import psutil
import torch

from refiner_ds.data.shards import open_shards
from refiner_ds.data.store.opening import is_url
from refiner_ds.errors import UserError
from refiner_ds.refiners.unclip_files import cached_folder, look_whole
from refiner_ds.train.interface import VARIABLE, interface_towards

BESIDE = (
    "accelerate",
    "webdataset",
    "safetensors",
    "numpy",
    "mlflow",
    "triton",
    "nvidia-nccl-cu12",
    "nvidia-nccl-cu13",
)
"""Packages whose versions training itself does not compare."""
COMPILES_SECONDS, ASKS_SECONDS = 20, 10
PROGRAM = "#include <Python.h>\n#include <vector>\nint main() { return (int)std::vector<int>().size(); }\n"


def devices() -> dict[str, Any]:
    """GPUs as torch sees them, with their memory in bytes, and as the driver does.

    `gpus` is a list of {name, bytes}; `driver` is None where there is none; `used_bytes` is what programs hold now.
    """
    gpus = [torch.cuda.get_device_properties(index) for index in range(torch.cuda.device_count())]
    rows = _nvidia_smi()
    return {
        "gpus": [{"name": gpu.name, "bytes": gpu.total_memory} for gpu in gpus],
        "cores": len(os.sched_getaffinity(0)),
        "memory_bytes": psutil.virtual_memory().total,
        "driver": rows[0][0] if rows else None,
        "driver_gpus": len(rows),
        "used_bytes": [int(float(row[1]) * 2**20) for row in rows],
        "cuda": torch.version.cuda,
        "nccl": ".".join(map(str, torch.cuda.nccl.version())) if gpus else None,
    }


def _nvidia_smi() -> list[list[str]]:
    command = ["nvidia-smi", "--query-gpu=driver_version,memory.used", "--format=csv,noheader,nounits"]
    try:
        said = subprocess.run(command, capture_output=True, text=True, timeout=ASKS_SECONDS, check=True).stdout
        return [[cell.strip() for cell in line.split(",")] for line in said.splitlines() if line.strip()]
    except (OSError, subprocess.SubprocessError):
        return []


def network(master: str | None) -> dict[str, Any]:
    """The host's name, the address that it resolves to, and the interface that gloo is to take towards `master`."""
    name = platform.node()
    try:
        own = socket.gethostbyname(name)
    except OSError:
        own = ""
    found: dict[str, Any] = {"name": name, "own_address": own, "interface": None, "no_interface": None}
    found["nccl"] = os.environ.get("NCCL_SOCKET_IFNAME")
    found["no_nccl"] = _nccl_fault(found["nccl"] or "")
    if chosen := os.environ.get(VARIABLE):
        names = chosen.split(",")
        missing = [one for one in names if one not in psutil.net_if_addrs()]
        found["interface"] = chosen
        if missing:
            found["no_interface"] = (
                f"{VARIABLE} is {chosen}, and there is no {missing[0]} among this host's interfaces "
                f"({', '.join(psutil.net_if_addrs())}); name the one that leads to the other hosts."
            )
    elif master:
        try:
            found["interface"] = interface_towards(master)
        except UserError as error:
            found["no_interface"] = str(error)
    return found


def _nccl_fault(chosen: str) -> str | None:
    """Why NCCL would find no interface by NCCL_SOCKET_IFNAME: beginnings of names, or after "=" whole names."""
    wanted = [one for one in chosen.removeprefix("=").split(",") if one]
    if not wanted or chosen.startswith("^"):
        return None
    names = list(psutil.net_if_addrs())
    if any(name in wanted if chosen.startswith("=") else name.startswith(tuple(wanted)) for name in names):
        return None
    return (
        f"NCCL_SOCKET_IFNAME is {chosen}, which fits none of this host's interfaces ({', '.join(names)}); name the one "
        "that leads to the other hosts."
    )


def port_fault(port: int) -> str | None:
    """Why ranks could not meet on this port of this host; None where they could."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("", port))
            probe.listen(1)
        except (OSError, OverflowError) as error:
            return error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return None


def shards(location: str) -> dict[str, Any]:
    """The digest of the shards' index, once every shard has its size and the first and the last sample were read.

    Raises:
        UserError: they are not there, or not as the index says.
    """
    opened = open_shards(location)
    try:
        index = opened.index
        for shard in () if is_url(location) else index.shards:
            path = Path(location) / shard.name
            size = path.stat().st_size if path.is_file() else None
            if size != shard.bytes:
                what = "is not there" if size is None else f"has {size} bytes"
                raise UserError(f"shard {path} {what}, and its index says {shard.bytes} bytes; copy the whole folder.")
        for row in {0, len(index) - 1}:
            opened.read(row, "render")
        return {"digest": index.digest, "samples": len(index), "shards": len(index.shards)}
    finally:
        opened.close()


def base(name: str, revision: str | None, variant: str | None) -> dict[str, Any]:
    """The digest of a base and the number of weights to train; the digest is None where it is yet to be downloaded.

    Raises:
        UserError: it is not whole.
    """
    folder = cached_folder(name, revision)
    if folder is None:
        return {"digest": None, "parameters": None}
    whole = look_whole(name, folder, variant)
    return {"digest": whole.digest, "parameters": whole.parameters}


def disk(output_dir: Path) -> dict[str, Any]:
    """Free bytes where the output folder is or would be made, and whether it can be written.

    Raises:
        UserError: it cannot.
    """
    path = output_dir.absolute()
    place = next(folder for folder in (path, *path.parents) if folder.exists())
    if not place.is_dir():
        raise UserError(f"output folder {output_dir} lies below {place}, which is a file; name another folder.")
    probe = place / f".refiner-ds-doctor-{uuid.uuid4().hex}"
    try:
        probe.write_bytes(b"doctor")
        probe.unlink()
    except OSError as error:
        raise UserError(
            f"output folder {output_dir} cannot be written ({place}: {error.strerror}); name another folder, or let "
            "this user write there."
        ) from error
    return {"free_bytes": shutil.disk_usage(place).free}


def compiler() -> dict[str, Any]:
    """Whether C++ with Python's headers compiles here, and what else DeepSpeed's just-in-time ops ask for."""
    name = os.environ.get("CXX") or next(filter(shutil.which, ("c++", "g++", "clang++")), "c++")
    command = [*name.split(), "-x", "c++", "-fsyntax-only", f"-I{sysconfig.get_path('include')}", "-"]
    fault = None
    try:
        done = subprocess.run(
            command, input=PROGRAM, capture_output=True, text=True, timeout=COMPILES_SECONDS, check=False
        )
        if done.returncode:
            fault = next((line for line in done.stderr.splitlines() if "error" in line), "it fails")
    except (OSError, subprocess.SubprocessError) as error:
        fault = error.strerror if isinstance(error, OSError) and error.strerror else type(error).__name__
    home = os.environ.get("CUDA_HOME") or "/usr/local/cuda"
    nvcc = shutil.which("nvcc") or next((str(p) for p in [Path(home, "bin", "nvcc")] if p.exists()), None)
    return {"name": name, "fault": fault, "ninja": bool(shutil.which("ninja")), "nvcc": nvcc}
