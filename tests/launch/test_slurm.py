"""`sbatch launch/slurm.sbatch` on a real cluster: it trains, survives preemption, and ends when it shall."""

import json
import os
import signal
import sys
import time

import psutil
import pytest

from tests.train.launch import losses

pytestmark = pytest.mark.slow
STEPS = 16


@pytest.fixture(scope="module")
def flags(flags):
    """A run of some ten seconds on two ranks, with a checkpoint every four steps."""
    longer = {"--gradient_accumulation_steps": 2, "--max_train_steps": STEPS, "--checkpointing_steps": 4}
    return {**flags, **longer}


@pytest.fixture
def submit(cluster, flags, tmp_path):
    """`submit(**more)` hands launch/slurm.sbatch to the cluster as a user would, and returns the job's number."""
    cluster.environment |= {"DS_ACCELERATOR": "cpu", "OMP_NUM_THREADS": "1", "PYTHON": sys.executable}

    def run(**more: object) -> str:
        given = {**flags, "--output_dir": tmp_path / "run", **{f"--{name}": value for name, value in more.items()}}
        arguments = [str(part) for pair in given.items() for part in pair]
        (tmp_path / "logs").mkdir()
        options = ["--nodes=1", "--gpus-per-node=2", f"--output={tmp_path}/logs/slurm-%j.out", "--parsable"]
        job = cluster.ask("sbatch", *options, "launch/slurm.sbatch", "--nproc_per_node", "2", *arguments).strip()
        assert job.isdecimal()
        return job

    yield run
    for process in ours(tmp_path):
        process.kill()


def ours(folder) -> list[psutil.Process]:
    """What runs with this folder among its arguments; without the tracking process, which outlives a run on purpose."""
    found = []
    for process in psutil.process_iter(["cmdline"]):
        line = " ".join(process.info["cmdline"] or [])
        if str(folder) in line and "refiner_ds.tracking.ship" not in line and process.pid != os.getpid():
            found.append(process)
    return found


def has_trained(folder, step: int, seconds: float = 90) -> None:
    """Waits for a checkpoint."""
    deadline = time.monotonic() + seconds
    while not (folder / f"checkpoint-{step}" / "commit.json").exists():
        assert time.monotonic() < deadline, [path.read_text()[-2000:] for path in (folder.parent / "logs").iterdir()]
        time.sleep(0.05)


def is_quiet(folder, seconds: float = 20) -> bool:
    """True as soon as nothing of the job runs."""
    deadline = time.monotonic() + seconds
    while ours(folder) and time.monotonic() < deadline:
        time.sleep(0.2)
    return not ours(folder)


def test_a_preempted_job_queues_itself_again_and_continues_exactly(cluster, submit, flags, tmp_path):
    job, folder = submit(), tmp_path / "run"
    has_trained(folder, 4)
    cluster.ask("scancel", "--signal=USR1", "--batch", job)  # what `--signal=B:USR1@300` sends before the time is over
    cluster.wait(job, "PENDING", seconds=40)
    assert not (folder / "finished.json").exists() and is_quiet(tmp_path, 1)
    cluster.wait(job, "COMPLETED", seconds=180)
    assert cluster.exit_code(job) == 0 and json.loads((folder / "finished.json").read_text()) == {"step": STEPS}
    told = (tmp_path / "logs" / f"slurm-{job}.out").read_text()
    assert "got SIGUSR1: ending the step; if there is a new checkpoint, the job queues itself again" in told
    (node,) = (tmp_path / "logs").glob(f"slurm-{job}-*.log")
    assert node.read_text().count("global batch 8") == 2 and "continuing from" in node.read_text(), "it is appended to"
    given = [str(part) for pair in {**flags, "--output_dir": tmp_path / "whole"}.items() for part in pair]
    tasks = ["--ntasks-per-node=2", "--gpus-per-node=2", "--distribution=block", "--kill-on-bad-exit=1"]
    cluster.ask("srun", *tasks, sys.executable, "-m", "refiner_ds.train", *given, seconds=240)  # in one go
    assert json.loads((tmp_path / "whole" / "finished.json").read_text()) == {"step": STEPS}
    assert losses(folder) == losses(tmp_path / "whole")  # to the last bit


def test_a_killed_rank_fails_the_job_and_leaves_nothing(cluster, submit, tmp_path):
    job = submit(max_train_steps=100_000)
    has_trained(tmp_path / "run", 4)
    newest = max((one for one in ours(tmp_path) if "-m refiner_ds.train" in " ".join(one.cmdline())), key=_age)
    newest.send_signal(signal.SIGKILL)
    cluster.wait(job, "FAILED", seconds=30)
    assert cluster.exit_code(job) != 0 and is_quiet(tmp_path)
    (node,) = (tmp_path / "logs").glob(f"slurm-{job}-*.log")
    assert "was killed by SIGKILL" in node.read_text()


def _age(process: psutil.Process) -> float:
    return process.create_time()


def test_a_cancelled_job_ends_and_stays_cancelled(cluster, submit, tmp_path):
    job = submit(max_train_steps=100_000)
    has_trained(tmp_path / "run", 4)
    cluster.ask("scancel", job)
    cluster.wait(job, "CANCELLED", seconds=40)
    assert is_quiet(tmp_path)


def test_a_mistake_is_told_and_is_not_queued_again(cluster, submit, tmp_path):
    job = submit(shards=tmp_path / "nowhere")
    cluster.wait(job, "FAILED", seconds=60)
    assert cluster.exit_code(job) == 2
    (node,) = (tmp_path / "logs").glob(f"slurm-{job}-*.log")
    assert f"{tmp_path}/nowhere" in node.read_text().partition("Traceback")[0], (
        "the sentence comes before torchrun's own words"
    )
