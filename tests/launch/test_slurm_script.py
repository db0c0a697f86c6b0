"""launch/slurm.sbatch with a Slurm of a few lines: where all meet, and when it queues itself again."""

import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

from tests.train.launch import REPO

SCONTROL = """#!/bin/bash
case $* in
"show job 4711") echo "   StdOut=$NOTES/slurm-4711.out" ;;
"show hostnames node[3-4]") printf 'node3\\nnode4\\n' ;;
*) echo "$*" >> "$NOTES/asked" ;;
esac
"""
SRUN = """#!/bin/bash
printf '%s\\n' "$@" > "$NOTES/started"
[ -n "$WAITS" ] || exit "${CODE:-0}"
trap 'exit 143' TERM
while :; do sleep 0.05; done
"""
SLURM = {
    "SLURM_JOB_ID": "4711", "SLURM_JOB_NODELIST": "node[3-4]", "SLURM_JOB_NUM_NODES": "2",
    "SLURM_SUBMIT_DIR": str(REPO),
}  # fmt: skip


@pytest.fixture
def job(tmp_path):
    """`job(**variables)` starts the script of a job on two nodes."""
    for name, text in (("scontrol", SCONTROL), ("srun", SRUN)):
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o755)
    settings = {**os.environ, **SLURM, "PATH": f"{tmp_path}:{os.environ['PATH']}", "NOTES": str(tmp_path)}
    started = []

    def run(**variables: str) -> subprocess.Popen:
        command = ["bash", REPO / "launch" / "slurm.sbatch", "--shards", "a b", "--output_dir", tmp_path / "run"]
        outputs = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
        started.append(subprocess.Popen(command, env={**settings, **variables}, **outputs))
        return started[-1]

    yield run
    for process in started:
        process.kill()


def commit(folder: Path, step: int) -> None:
    """A complete checkpoint, as far as the script looks."""
    (folder / f"checkpoint-{step}").mkdir(parents=True)
    (folder / f"checkpoint-{step}" / "commit.json").write_text("{}")


def test_the_nodes_meet_on_the_first_at_a_port_of_the_job(job, tmp_path):
    process = job()
    assert process.wait(20) == 0, process.communicate()[0]
    *_, arguments = (tmp_path / "started").read_text().partition("launch/torchrun.sh\n")
    expected = ["--nnodes", "2", "--master_addr", "node3", "--master_port", "24711"]
    assert arguments.splitlines() == [*expected, "--shards", "a b", "--output_dir", str(tmp_path / "run")]
    assert f"--output={tmp_path}/slurm-%j-%N.log" in (tmp_path / "started").read_text()
    assert not (tmp_path / "asked").exists(), "what has ended well is not queued again"


@pytest.mark.parametrize("progresses", [True, False])
def test_at_the_end_of_its_time_a_job_is_queued_again_where_it_has_got_further(job, tmp_path, progresses):
    commit(tmp_path / "run", 500)
    process = job(WAITS="yes")
    deadline = time.monotonic() + 20
    while not (tmp_path / "started").exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    if progresses:
        commit(tmp_path / "run", 1000)
    process.send_signal(signal.SIGUSR1)
    said, _ = process.communicate(timeout=20)
    if progresses:
        assert process.returncode == 0 and (tmp_path / "asked").read_text() == "requeue 4711\n", said
    else:
        assert process.returncode == 143 and not (tmp_path / "asked").exists()
        assert f"no newer checkpoint in {tmp_path}/run than when this job started, so it is not queued again" in said
        assert "ask for more --time, or give a lower --checkpointing_steps" in said
