"""Starts training as a user would, under each launcher, and reads what it left."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

REPO = Path(__file__).parents[2]
TIMEOUT_SECONDS = 240


def free_port() -> str:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return str(probe.getsockname()[1])


def deepspeed(*program: str) -> list[str]:
    return ["-m", "deepspeed.launcher.runner", "--num_gpus", "2", "--master_port", free_port(), *program]


def accelerate(config: Path) -> list[str]:
    return [
        *("-m", "accelerate.commands.launch", "--num_processes", "2", "--num_machines", "1", "--use_deepspeed"),
        *("--main_process_port", free_port(), "--deepspeed_config_file", str(config), "-m", "refiner_ds.train"),
    ]


def torchrun() -> list[str]:
    return [
        "-m",
        "torch.distributed.run",
        "--nproc-per-node",
        "2",
        "--master-port",
        free_port(),
        "-m",
        "refiner_ds.train",
    ]


def start(launcher: list[str], flags: dict[str, object]) -> subprocess.CompletedProcess:
    """Runs a launcher with the flags to its end; whatever it started is ended with it."""
    arguments = [str(part) for pair in flags.items() for part in pair]
    environment = {**os.environ, "DS_ACCELERATOR": "cpu", "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(
        [sys.executable, *launcher, *arguments],
        cwd=REPO,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    try:
        output, _ = process.communicate(timeout=TIMEOUT_SECONDS)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, 9)
        output, _ = process.communicate()
        raise AssertionError(f"training did not end within {TIMEOUT_SECONDS} s:\n{output[-3000:]}") from None
    return subprocess.CompletedProcess(process.args, process.returncode, output)


def losses(folder: Path) -> dict[int, float]:
    """train/loss by step, the later figure where a step was made twice."""
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return {line["step"]: line["train/loss"] for line in lines if "train/loss" in line}
