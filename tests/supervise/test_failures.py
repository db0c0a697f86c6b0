"""What ends one process of a running job ends the job: soon, with the reason, and with nothing left behind."""

import os
import platform
import signal
import subprocess
import sys
import time

import psutil
import pytest

from refiner_ds.state import read_state
from tests.train.launch import REPO, ZERO2, deepspeed, torchrun

pytestmark = pytest.mark.slow
PROMISED_SECONDS = 20
TRAIN = ["--module", "refiner_ds.train"]


@pytest.fixture
def job(request, shards, tiny_base, tmp_path):
    """A job of two ranks that trains until it is disturbed: its launcher's process, its run's folder."""
    launcher = {"deepspeed": lambda: deepspeed(*TRAIN), "torchrun": torchrun}[request.param]()
    flags = {
        "--shards": shards,
        "--pretrained_model_name_or_path": tiny_base,
        "--output_dir": tmp_path / "run",
        "--deepspeed_config": ZERO2,
        "--buckets": "1.0:64x64,1.5:96x64",
        "--gradient_accumulation_steps": 1,
        "--max_train_steps": 100_000,
        "--validation_epochs": 0,
        "--logging_steps": 1,
        "--dataloader_num_workers": 1,
        "--tracking_uri": f"sqlite:///{tmp_path}/mlflow.db",
    }
    process = subprocess.Popen(
        [sys.executable, *launcher, *(str(part) for pair in flags.items() for part in pair)],
        cwd=REPO,
        env={**os.environ, "DS_ACCELERATOR": "cpu", "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    journal = tmp_path / "run" / "metrics.jsonl"
    deadline = time.monotonic() + 120
    while not (journal.exists() and journal.stat().st_size) and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.1)
    started = family(process.pid)
    yield process, tmp_path / "run", started
    for one in started:
        if one.is_running():
            one.kill()
    process.communicate()


def family(pid: int) -> list[psutil.Process]:
    """A job's processes, from the launcher down; without the tracking process, which outlives a run on purpose."""
    root = psutil.Process(pid)
    everyone = [root, *root.children(recursive=True)]
    return [one for one in everyone if "refiner_ds.tracking.ship" not in " ".join(one.cmdline())]


def ranks_of(started: list[psutil.Process]) -> tuple[list[psutil.Process], list[psutil.Process]]:
    """(wardens, ranks), each by rank."""
    trainers = [one for one in started if "refiner_ds.train" in one.cmdline()]
    wardens = [one for one in trainers if "REFINER_DS_WARDEN" not in one.environ() and "RANK" in one.environ()]
    ranks = [one for one in trainers if "REFINER_DS_WARDEN" in one.environ()]
    for group in (wardens, ranks):
        group.sort(key=lambda one: int(one.environ()["RANK"]))
    return wardens, ranks


def seconds_until_all_ended(started: list[psutil.Process]) -> float:
    began = time.monotonic()
    _, alive = psutil.wait_procs(started, timeout=60)
    assert not alive, [one.cmdline() for one in alive]
    return time.monotonic() - began


@pytest.mark.parametrize(
    ("job", "victim"),
    [("deepspeed", "rank"), ("torchrun", "warden")],
    indirect=["job"],
)
def test_a_killed_rank_ends_the_job_with_its_name_and_its_log(job, victim):
    process, folder, started = job
    wardens, ranks = ranks_of(started)
    assert len(wardens) == len(ranks) == 2
    (ranks if victim == "rank" else wardens)[1].kill()
    output, _ = process.communicate(timeout=60)
    assert seconds_until_all_ended(started) < PROMISED_SECONDS
    assert process.returncode != 0 and not (folder / "finished.json").exists()
    log = folder / "logs" / "rank-00001.log"
    how = "was killed by SIGKILL" if victim == "rank" else "is gone without a word"
    assert f"rank 1 of 2 on {platform.node()} {how}" in output, output[-3000:]
    assert f"its log is {log}" in output
    state = read_state(folder)
    assert (state.state, state.exit_code) == ("failed", 1)
    assert state.cause.startswith(f"rank 1 of 2 on {platform.node()} {how}")
    if victim == "rank":
        assert how in log.read_text()
    else:
        assert f"its log is {log} and ends with:" in output and how in (folder / "logs" / "rank-00000.log").read_text()
    assert "step" in (folder / "logs" / "rank-00000.log").read_text(), "what rank 0 said is in its log"


@pytest.mark.parametrize(
    ("job", "which", "number"),
    [
        ("deepspeed", "inner", signal.SIGKILL),
        ("deepspeed", "outer", signal.SIGTERM),
        pytest.param("deepspeed", "outer", signal.SIGKILL, marks=pytest.mark.long),
        pytest.param("torchrun", "outer", signal.SIGKILL, marks=pytest.mark.long),
    ],
    indirect=["job"],
)
def test_no_rank_outlives_its_launcher(job, which, number):
    process, folder, started = job
    victim = process.pid if which == "outer" else psutil.Process(process.pid).children()[0].pid
    began = time.monotonic()
    os.kill(victim, number)
    process.communicate(timeout=60)
    seconds_until_all_ended(started)
    assert time.monotonic() - began < PROMISED_SECONDS
    assert not (folder / "finished.json").exists()
    told = "".join((folder / "logs" / f"rank-{rank:05d}.log").read_text() for rank in (0, 1))
    assert "was ended because its launcher, process " in told or "was ended by SIGTERM" in told
