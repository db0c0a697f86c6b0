"""Ranks that train for the clock on this machine, alone and together: knows no engine, only what they answer."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from refiner_ds.bench.cable import LOOPBACK, Host, loopback
from refiner_ds.bench.process import RunFailed
from refiner_ds.ports import free_port

MODULE = "refiner_ds.verbs.bench_exchange_rank"
ALONE, WHOLE, STAGE_2, COALESCED = "one rank", "ZeRO-1", "ZeRO-2", "ZeRO-2, coalesced"
TOGETHER = (WHOLE, STAGE_2, COALESCED)
TIMEOUT = 1200
"""Seconds after which the ranks of a round count as failed."""
ENVIRONMENT = {"OMP_NUM_THREADS": "1", "DS_ACCELERATOR": "cpu", "CUDA_VISIBLE_DEVICES": ""}
"""Ranks compute on the CPU, each on a core."""


@dataclass(frozen=True)
class Turn:
    """What one way measured in one round.

    Attributes:
        seconds: of an optimizer step, by the clock of rank 0.
        sent: bytes that a rank's card sent in a step, headers included; over loopback the mean of the ranks.
        trained: weights that are trained.
    """

    seconds: float
    sent: float
    trained: int


def race(
    job: dict[str, Any], hosts: Sequence[Host], rounds: int, folder: Path, tell: Callable[[str, int, int], None]
) -> dict[str, list[Turn]]:
    """By way its turns. In every round one rank trains alone, and then one on each host by all other ways in turn.

    Args:
        job: what `bench_exchange_rank` reads, but for the ways.

    Raises:
        RunFailed: ranks did not end well.
    """
    found: dict[str, list[Turn]] = {name: [] for name in (ALONE, *TOGETHER)}
    for number in range(rounds):
        for done, (on, ways) in enumerate(((loopback(1), (ALONE,)), (hosts, TOGETHER[:: -1 if number % 2 else 1]))):
            tell("measuring exchange", 2 * number + done, 2 * rounds)
            for name, turn in run_ranks({**job, "ways": ways}, on, folder).items():
                found[name].append(turn)
    return found


def run_ranks(job: dict[str, Any], hosts: Sequence[Host], folder: Path) -> dict[str, Turn]:
    """One process on each host, to their end, after which none of them is left.

    Raises:
        RunFailed: one did not end well.
    """
    answer = folder / "answer.json"
    answer.unlink(missing_ok=True)
    is_shared, port = hosts[0].card == LOOPBACK, str(free_port())
    on_card = len(hosts) if is_shared else 1
    told = {**job, "bench": os.getpid(), "card": hosts[0].card, "ranks_of_card": on_card, "answer": str(answer)}
    said = [folder / f"said-{rank}.txt" for rank in range(len(hosts))]
    processes = []
    try:
        for rank, host in enumerate(hosts):
            place = {
                "RANK": str(rank),
                "WORLD_SIZE": str(len(hosts)),
                "LOCAL_RANK": str(rank) if is_shared else "0",
                "LOCAL_WORLD_SIZE": str(len(hosts)) if is_shared else "1",
                "MASTER_ADDR": hosts[0].address,
                "MASTER_PORT": port,
            }
            with said[rank].open("w") as file:
                processes.append(
                    subprocess.Popen(
                        [*host.words, sys.executable, "-m", MODULE, json.dumps(told)],
                        env={**os.environ, **ENVIRONMENT, **place},
                        stdin=subprocess.DEVNULL,
                        stdout=file,
                        stderr=file,
                    )
                )
        first = _first_failed(processes)
    finally:
        for process in processes:
            process.kill()
            process.wait()
    if first is not None:
        lines = said[first].read_text(errors="replace").strip().splitlines()
        how = f"exit status {processes[first].returncode}"
        raise RunFailed(f"rank {first}, {how}{f', {lines[-1]}' if lines else ''}")
    return {name: Turn(**turn) for name, turn in json.loads(answer.read_text(encoding="utf-8")).items()}


def _first_failed(processes: Sequence[subprocess.Popen]) -> int | None:
    """The rank that failed first, for which the others would wait; None once all have ended well."""
    deadline = time.monotonic() + TIMEOUT
    while True:
        codes = [process.poll() for process in processes]
        if any(codes):
            return next(rank for rank, code in enumerate(codes) if code)
        if None not in codes:
            return None
        if time.monotonic() > deadline:
            raise RunFailed(f"took longer than {TIMEOUT} s")
        time.sleep(0.1)
