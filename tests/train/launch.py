"""Starts training as a user would, under each launcher, and reads what it left."""

import contextlib
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

REPO = Path(__file__).parents[2]
ZERO2 = REPO / "ds_configs" / "zero2_fp32.json"
"""Where precision is not the point: a CPU without AVX-512 takes ten times as long for a convolution in bf16."""
TIMEOUT_SECONDS = 240


def free_port() -> str:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return str(probe.getsockname()[1])


def deepspeed(*program: str) -> list[str]:
    return ["-m", "deepspeed.launcher.runner", "--num_gpus", "2", "--master_port", free_port(), *program]


def accelerate(folder: Path) -> list[str]:
    """With the configuration of launch/ but for its precision, written into a folder."""
    text = (REPO / "launch" / "accelerate_zero2.yaml").read_text()
    own = folder / "accelerate.yaml"
    own.write_text(text.replace("ds_configs/zero2_bf16.json", str(ZERO2)))
    return [
        *("-m", "accelerate.commands.launch", "--config_file", str(own), "--num_processes", "2"),
        *("--main_process_port", free_port(), "-m", "refiner_ds.train"),
    ]


def torchrun(module: str = "refiner_ds.train") -> list[str]:
    return [
        "-m",
        "torch.distributed.run",
        "--nproc-per-node",
        "2",
        "--master-port",
        free_port(),
        "-m",
        module,
    ]


def start(launcher: list[str], flags: dict[str, object], **environment: str) -> subprocess.CompletedProcess:
    """Runs a launcher with the flags to its end; whatever it started is ended with it."""
    process = launch(launcher, flags, **environment)
    try:
        output, _ = process.communicate(timeout=TIMEOUT_SECONDS)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, 9)
        output, _ = process.communicate()
        raise AssertionError(f"training did not end within {TIMEOUT_SECONDS} s:\n{output[-3000:]}") from None
    return subprocess.CompletedProcess(process.args, process.returncode, output)


def srun(
    flags: dict[str, object], folder: Path, port: str, *others: object, ranks: Sequence[int] = (0, 1)
) -> list[tuple[int, str]]:
    """Exit codes and outputs of two tasks as srun starts them on one node; `others` are rank 1's flags beside."""
    tasks = []
    for rank in ranks:
        variables = {
            "SLURM_STEP_NUM_TASKS": "2", "SLURM_STEP_TASKS_PER_NODE": "2", "SLURM_STEP_NODELIST": "localhost",
            "SLURM_PROCID": str(rank), "SLURM_LOCALID": str(rank), "SLURM_NODEID": "0", "MASTER_PORT": port,
        }  # fmt: skip
        given = {**flags, "--output_dir": folder}
        arguments = [str(part) for pair in given.items() for part in pair] + [str(other) for other in others * rank]
        tasks.append(
            subprocess.Popen(
                [sys.executable, "-m", "refiner_ds.train", *arguments],
                cwd=REPO,
                env={**os.environ, "DS_ACCELERATOR": "cpu", "OMP_NUM_THREADS": "1", **variables},
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            )
        )
    try:
        outputs = [task.communicate(timeout=TIMEOUT_SECONDS)[0] for task in tasks]
    finally:
        for task in tasks:
            task.kill()
    return [(task.returncode, output) for task, output in zip(tasks, outputs, strict=True)]


def kill_once(launcher: list[str], flags: dict[str, object], sign: Path) -> None:
    """Runs a launcher and kills it and all its ranks, as a power cut would, as soon as the file `sign` is there."""
    process = launch(launcher, flags)
    deadline = time.monotonic() + TIMEOUT_SECONDS
    while not sign.exists() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.02)
    for child in (process.pid, *_descendants(process.pid)):
        with contextlib.suppress(ProcessLookupError):
            os.kill(child, 9)
    output, _ = process.communicate()
    assert sign.exists(), output[-3000:]


def _descendants(process: int) -> list[int]:
    """All processes below one, whatever session they are in."""
    parents = {}
    for status in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            parents[int(status.parent.name)] = int(status.read_text().rpartition(")")[2].split()[1])
    found = [process]
    for parent in found:  # grows while it is walked, down to the last generation
        found += [child for child, its in parents.items() if its == parent]
    return found[1:]


def launch(launcher: list[str], flags: dict[str, object], **environment: str) -> subprocess.Popen:
    """Starts a launcher with the flags, in a session of its own."""
    arguments = [str(part) for pair in flags.items() for part in pair if part is not None]  # None: a flag by itself
    return subprocess.Popen(
        [sys.executable, *launcher, *arguments],
        cwd=REPO,
        env={**os.environ, "DS_ACCELERATOR": "cpu", "OMP_NUM_THREADS": "1", **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def losses(folder: Path) -> dict[int, float]:
    """train/loss by step, the later figure where a step was made twice."""
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return {line["step"]: line["train/loss"] for line in lines if "train/loss" in line}
