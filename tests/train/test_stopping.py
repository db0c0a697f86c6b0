"""When a run is asked to stop."""

import os
import signal
import subprocess
import sys
import time

import pytest

from refiner_ds.errors import UserError
from refiner_ds.train.stopping import Stopping, end_of_job


@pytest.mark.parametrize("name", ["SIGTERM", "SIGUSR1", "SIGINT"])
def test_a_signal_is_noticed_by_its_name(name):
    program = (
        "import os, signal; from refiner_ds.train.stopping import Stopping\n"
        f"stopping = Stopping(); stopping.watch(); os.kill(os.getpid(), signal.{name}); print(stopping.cause)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout == f"{name}\n"


def test_a_second_interrupt_ends_at_once_and_an_echo_of_the_first_does_not():
    program = (
        "import os, signal, time; from refiner_ds.train import stopping\n"
        "stopping.Stopping().watch(); interrupt = lambda: os.kill(os.getpid(), signal.SIGINT)\n"
        "interrupt(); interrupt(); print('goes on', flush=True); time.sleep(stopping.REPEATED_SECONDS + 0.2)\n"
        "interrupt(); time.sleep(30)"
    )
    began = time.monotonic()
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 128 + signal.SIGINT and "interrupted twice" in done.stderr and done.stdout == "goes on\n"
    assert time.monotonic() - began < 25


def test_the_queues_time_is_a_cause_once_it_is_nearly_over():
    assert Stopping(time.time() - 1).cause == "--save_before_end"
    assert Stopping(time.time() + 100).cause == "" == Stopping().cause


def test_the_end_is_what_a_variable_says_or_slurm(tmp_path):
    assert end_of_job({"REFINER_DS_END_TIME": "1700000000", "SLURM_JOB_END_TIME": "5"}) == 1700000000
    assert end_of_job({"SLURM_JOB_END_TIME": "1700000000"}) == 1700000000


def test_slurm_is_asked_where_it_has_not_said(tmp_path, monkeypatch):
    squeue = tmp_path / "squeue"
    squeue.write_text('#!/bin/sh\n[ "$4" = 77 ] && echo 2026-05-04T03:02:01\n')
    squeue.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    assert end_of_job({"SLURM_JOB_ID": "77"}) == time.mktime((2026, 5, 4, 3, 2, 1, 0, 0, -1))


@pytest.mark.parametrize("environment", [{}, {"REFINER_DS_END_TIME": "soon"}])
def test_a_job_whose_end_nobody_knows_is_refused(environment):
    with pytest.raises(UserError, match=r"--save_before_end is given, but neither Slurm nor REFINER_DS_END_TIME"):
        end_of_job(environment)
