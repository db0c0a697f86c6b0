"""Starts what brings runs to MLflow, in processes of their own; knows nothing of MLflow but the name of its setting."""

import os
import subprocess
import sys
from pathlib import Path

LOG = "tracking.log"


def start_shipper(folder: Path, uri: str | None, experiment: str) -> subprocess.Popen:
    """A process of its own session that follows this process and ends after it; its words go to tracking.log."""
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": ""}
    if uri:
        environment["MLFLOW_TRACKING_URI"] = uri
    command = [sys.executable, "-m", "refiner_ds.tracking.ship", str(folder), "--experiment", experiment]
    with (folder / LOG).open("a", encoding="utf-8") as log:
        return subprocess.Popen(
            [*command, "--trainer", str(os.getpid())],
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )


def nest_evaluation(output: Path, run: Path) -> str:
    """Brings an evaluation into the MLflow run of a training, and waits for that; what hindered it, in words."""
    command = [sys.executable, "-m", "refiner_ds.tracking.nested", str(output), str(run)]
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    return done.stderr.strip().rpartition("\n")[2] if done.returncode else ""
