"""One process of the bench, from its start to what it answers; the machine and the libraries that it runs on."""

import json
import os
import signal
import subprocess
import time
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

import refiner_ds
from refiner_ds.bench.job import Figures, Job, load_figures, save
from refiner_ds.errors import UserError

TIMEOUT = 1200
"""Seconds after which one run counts as failed."""
PATIENCE = 10
"""Seconds that what it started has to end after it."""
ENVIRONMENT = {"OMP_NUM_THREADS": "1", "LITDATA_DISABLE_VERSION_CHECK": "1"}
"""For every process: CPU time is compared by the core, and nothing is asked of a network."""
COMMON = ("torch", "numpy", "Pillow", "imagecodecs")
"""Libraries whose versions matter to every loader."""
VERSIONS = """
import importlib.metadata, json, platform, sys
def version_of(name):
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None
print(json.dumps({"python": platform.python_version(), **{name: version_of(name) for name in sys.argv[1:]}}))
"""


class RunFailed(Exception):
    """A process of the bench that did not end well, and what it said last."""


def versions(python: str, distributions: Iterable[str]) -> dict[str, str | None]:
    """Versions of distributions, and of what matters to all, in an interpreter; None for what is not installed there.

    Raises:
        UserError: it is no interpreter.
    """
    names = [*COMMON, *distributions]
    try:
        done = subprocess.run([python, "-c", VERSIONS, *names], capture_output=True, text=True, check=True)
        return json.loads(done.stdout)
    except (OSError, ValueError, subprocess.CalledProcessError) as error:
        raise UserError(
            f"--peers_python {python} runs no Python ({error}), so no peer can be measured; name an interpreter."
        ) from error


def run_process(python: str, module: str, action: str, job: Job, folder: Path) -> Figures:
    """Runs `python -m module action` for a job to its end, after which no process of it is left.

    Args:
        folder: where it runs and leaves its files; python -m looks for modules there first.

    Raises:
        RunFailed: it did not end well.
    """
    job_path, figures_path, said_path = folder / "job.json", folder / "figures.json", folder / "said.txt"
    save(job, job_path)
    figures_path.unlink(missing_ok=True)
    path = os.pathsep.join([str(Path(refiner_ds.__file__).parents[1]), os.environ.get("PYTHONPATH", "")])
    with said_path.open("w") as said:
        process = subprocess.Popen(
            [python, "-m", module, action, str(job_path), str(figures_path)],
            env={**os.environ, **ENVIRONMENT, "PYTHONPATH": path.rstrip(os.pathsep)},
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=said,
            stderr=said,
            start_new_session=True,
        )
    try:
        process.wait(TIMEOUT)
        _wait_for_group(process.pid)
    except subprocess.TimeoutExpired as error:
        raise RunFailed(f"took longer than {TIMEOUT} s") from error
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    if process.returncode or not figures_path.exists():
        lines = said_path.read_text(errors="replace").strip().splitlines()
        raise RunFailed(lines[-1] if lines else f"exit status {process.returncode}")
    return load_figures(figures_path)


def _wait_for_group(group: int) -> None:
    """Lets what outlives its parent, such as Python's tracker of semaphores, put away what the parent left."""
    deadline = time.monotonic() + PATIENCE
    with suppress(ProcessLookupError):
        while time.monotonic() < deadline:
            os.killpg(group, 0)
            time.sleep(0.05)
