"""What `refiner-ds doctor` starts on every host: reads questions as lines of JSON, answers each with a line, and ends
with its input.

Everything comes by standard input and nothing on the command line, where a password could be read by anybody.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from refiner_ds.doctor import facts
from refiner_ds.doctor.doors import Doors, unreachable
from refiner_ds.doctor.protocol import MARK
from refiner_ds.errors import UserError
from refiner_ds.ports import free_port
from refiner_ds.versions import versions

DOORS = Doors()


def hello(environment: dict[str, str]) -> None:
    """Takes over the variables that the launcher scripts carry to every host."""
    os.environ.update(environment)


def clock() -> float:
    """Seconds since 1970 on this host."""
    return time.time()


def describe(master: str | None) -> dict[str, Any]:
    """What needs no name of a folder."""
    return {
        "versions": versions(facts.BESIDE),
        "devices": facts.devices(),
        "network": facts.network(master),
        "compiler": facts.compiler(),
    }


def disk(output_dir: str) -> dict[str, Any]:
    return facts.disk(Path(output_dir))


def put_marker(output_dir: str, name: str) -> list[str]:
    """Puts a file into the output folder, and tells which folders had to be made for it, the innermost first."""
    path = Path(output_dir).absolute()
    made = [str(folder) for folder in (path, *path.parents) if not folder.exists()]
    path.mkdir(parents=True, exist_ok=True)
    (path / name).write_bytes(b"")
    return made


def see_marker(output_dir: str, name: str, patience: float) -> bool:
    """Whether another host's file shows up here, within `patience` seconds, as a network folder may be late."""
    deadline = time.monotonic() + patience
    while True:
        if Path(output_dir).is_dir() and name in os.listdir(output_dir):
            return True
        if time.monotonic() > deadline:
            return False
        time.sleep(0.2)


def take_marker(output_dir: str, name: str, made: list[str]) -> None:
    """Takes the file away again, and the folders that were made for it."""
    (Path(output_dir).absolute() / name).unlink(missing_ok=True)
    for folder in made:
        os.rmdir(folder)


def mlflow(uri: str, experiment: str, patience: float) -> None:
    """Writes a run to the server and deletes it again, in a process of its own.

    Raises:
        UserError: the server does not take it.
    """
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": "", "MLFLOW_TRACKING_URI": uri}
    command = [sys.executable, "-m", "refiner_ds.tracking.probe", experiment]
    done = _run(command, environment, patience)
    if done.returncode:
        said = done.stderr.strip().splitlines()
        raise UserError(said[-1] if said else f"the probe ended with exit code {done.returncode}")


def all_reduce(
    backend: str,
    size: int,
    patience: float,
    ranks: list[int],
    world: int,
    master: str,
    port: int,
    interface: str | None,
) -> float | None:
    """This host's ranks of an all-reduce; its seconds on the host of rank 0.

    Raises:
        UserError: a rank failed; with the last lines that it has said.
    """
    environment = {**os.environ, "MASTER_ADDR": master, "MASTER_PORT": str(port), "WORLD_SIZE": str(world)}
    environment |= {"OMP_NUM_THREADS": "1", "LOCAL_WORLD_SIZE": str(len(ranks))}
    if interface:
        environment["GLOO_SOCKET_IFNAME"] = interface
    command = [sys.executable, "-m", "refiner_ds.doctor.allreduce", backend, str(size), str(patience)]
    with tempfile.TemporaryDirectory() as folder:
        started = []
        for local, rank in enumerate(ranks):
            with Path(folder, f"{rank}.out").open("w") as out, Path(folder, f"{rank}.err").open("w") as err:
                place = {"RANK": str(rank), "LOCAL_RANK": str(local)}
                started.append(
                    subprocess.Popen(
                        command, env={**environment, **place}, stdin=subprocess.DEVNULL, stdout=out, stderr=err
                    )
                )
        fault = _first_fault(started, ranks, 2 * patience, Path(folder))
        if fault:
            raise UserError(fault)
        said = Path(folder, f"{ranks[0]}.out").read_text().splitlines()
    return float(json.loads(said[-1])["seconds"]) if ranks[0] == 0 else None


def _first_fault(processes: list[subprocess.Popen], ranks: list[int], seconds: float, folder: Path) -> str | None:
    """Waits for all of them, and ends the others where one fails or the time is over."""
    deadline = time.monotonic() + seconds
    try:
        while any(process.poll() is None for process in processes):
            if any(process.poll() for process in processes) or time.monotonic() > deadline:
                break
            time.sleep(0.05)
        for rank, process in zip(ranks, processes, strict=True):
            if process.poll():
                lines = [line for line in Path(folder, f"{rank}.err").read_text().splitlines() if line.strip()]
                errors = [line for line in lines if "Error" in line or "error" in line]
                said = (errors or lines or ["it said nothing"])[-1].strip()[:300]
                return f"rank {rank} ended with exit code {process.returncode}: {said}"
        waiting = [rank for rank, process in zip(ranks, processes, strict=True) if process.poll() is None]
        return f"rank {waiting[0]} has not met the others within {seconds:.0f} s" if waiting else None
    finally:
        for process in processes:
            process.kill()
            process.wait()


def _run(command: list[str], environment: dict[str, str], seconds: float) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(
            command,
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=seconds,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise UserError(f"it has not answered within {seconds:.0f} s") from error


QUESTIONS: dict[str, Callable[..., Any]] = {
    "hello": hello,
    "clock": clock,
    "describe": describe,
    "shards": facts.shards,
    "base": facts.base,
    "disk": disk,
    "port_fault": facts.port_fault,
    "free_port": free_port,
    "put_marker": put_marker,
    "see_marker": see_marker,
    "take_marker": take_marker,
    "open_door": DOORS.open,
    "unreachable": unreachable,
    "mlflow": mlflow,
    "all_reduce": all_reduce,
}


def _answer(question: dict[str, Any]) -> dict[str, Any]:
    try:
        return {"answer": QUESTIONS[question["question"]](**question["arguments"])}
    except UserError as error:
        return {"refusal": str(error)}
    except Exception as error:  # whatever is wrong with a host is told, and must not end its agent
        return {"refusal": f"{type(error).__name__}: {error}"}


def main() -> None:
    """Answers until there are no more questions."""
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # what libraries print is no answer
    for line in sys.stdin:
        print(MARK + json.dumps(_answer(json.loads(line))), file=answers, flush=True)


if __name__ == "__main__":
    main()
