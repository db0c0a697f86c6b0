"""The scripts of launch/: arguments arrive, finished.json decides, restarts, signals and what travels between hosts."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from refiner_ds.doctor.environment import SECRET
from tests.train.launch import REPO, ZERO2, free_port, losses

LAUNCH = REPO / "launch"
FAKE = """#!/bin/bash
# a launcher: notes how it was started, finishes the run if told to, and ends as told
printf '%s\\0' "$@" > "$NOTES/arguments"
echo attempt >> "$NOTES/attempts"
[ -z "$DS_ENV_FILE" ] || { cp "$DS_ENV_FILE" "$NOTES/environment"; stat -c %a "$DS_ENV_FILE" > "$NOTES/mode"; }
trap 'echo TERM > "$NOTES/signal"; exit 143' TERM
echo "$REFINER_DS_LAUNCHER $$" > "$NOTES/launcher"
[ -z "$WAITS" ] || while :; do sleep 0.05; done
[ -z "$FINISHES" ] || echo '{"step": 1}' > "$FINISHES/finished.json"
[ -z "$PREEMPTED" ] || echo '{"cause": "'"$PREEMPTED"'"}' > "$NOTES/run/preempted.json"
exit "${CODE:-0}"
"""


@pytest.fixture
def notes(tmp_path):
    """A folder with a launcher of ours as `python -m torch...`, and an ssh that reaches every host."""
    fake = tmp_path / "python"
    fake.write_text(f'#!/bin/bash\n[ "$1" != - ] || exec {sys.executable} "$@"\n' + FAKE.partition("\n")[2])
    for name in ("ssh", "pdsh"):
        (tmp_path / name).write_text("#!/bin/bash\n[[ $* != *gone* ]] || { echo 'No route to host' >&2; exit 255; }\n")
    for name in ("python", "ssh", "pdsh"):
        (tmp_path / name).chmod(0o755)
    return tmp_path


def command(script: str, *arguments: object) -> list[str]:
    return ["bash", str(LAUNCH / script), *map(str, arguments)]


def environment(notes: Path, **more: str) -> dict[str, str]:
    paths = {"PATH": f"{notes}:{os.environ['PATH']}", "PYTHON": str(notes / "python"), "NOTES": str(notes)}
    return {**os.environ, **paths, **more}


def run(notes: Path, script: str, *arguments: object, **more: str) -> subprocess.CompletedProcess:
    started = [*command(script, *arguments, "--output_dir", notes / "run"), "--master_port", free_port()]
    (notes / "run").mkdir(exist_ok=True)
    return subprocess.run(
        started, env=environment(notes, **more), cwd=notes, capture_output=True, text=True, timeout=60, check=False
    )


def test_shellcheck_finds_nothing():
    tool = shutil.which("shellcheck", path=f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    assert tool, "shellcheck is missing: install the extra [dev]"
    scripts = [*LAUNCH.glob("*.sh"), LAUNCH / "slurm.sbatch"]
    done = subprocess.run([tool, "-x", *scripts], cwd=REPO, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout


def test_arguments_with_spaces_arrive_unchanged(notes):
    given = ["--run_name", "a b  $HOME 'c' \"d\" 100%", "--empty", "", "*"]
    done = run(notes, "torchrun.sh", *given, FINISHES=str(notes / "run"))
    assert done.returncode == 0, done.stderr
    arrived = (notes / "arguments").read_text().split("\0")[:-1]
    assert arrived[arrived.index("refiner_ds.train") + 1 :] == [*given, "--output_dir", str(notes / "run")]
    name, _, number = (notes / "launcher").read_text().strip().partition(":")
    assert name == os.uname().nodename and len(set(number.split())) == 1  # the launcher itself is named to the ranks


def test_exit_code_0_without_a_finished_run_is_a_failure(notes):
    (notes / "run").mkdir()
    (notes / "run" / "finished.json").write_text("{}")  # of an earlier run
    done = run(notes, "torchrun.sh")
    assert done.returncode == 1
    assert "ended with exit code 0 and the run has not finished: there is no new" in done.stderr


@pytest.mark.parametrize(("code", "attempts"), [("7", 3), ("2", 1)])
def test_a_failure_is_restarted_and_a_mistake_is_not(notes, code, attempts):
    done = run(notes, "torchrun.sh", "--max_restarts=2", CODE=code)
    assert done.returncode == int(code)
    assert (notes / "attempts").read_text().count("attempt") == attempts
    assert ("restart 2 of 2: continues from the newest checkpoint" in done.stderr) == (attempts == 3)


@pytest.mark.parametrize(
    ("cause", "code", "words"),
    [
        ("", 143, "stopped by SIGTERM; the same command continues"),
        ("SIGTERM", 75, "was asked to stop and has saved; the same command continues"),
    ],
)
def test_a_signal_reaches_the_launcher_and_ends_the_restarts(notes, cause, code, words):
    started = command("torchrun.sh", "--output_dir", notes / "run", "--max_restarts", 3, "--master_port", free_port())
    process = subprocess.Popen(started, env=environment(notes, WAITS="yes"), stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 20
    while not (notes / "launcher").exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    if cause:
        (notes / "run").mkdir(exist_ok=True)
        (notes / "run" / "preempted.json").write_text(json.dumps({"step": 3, "cause": cause}))
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=20)
    assert process.returncode == code and (notes / "signal").exists() and words in errors


def test_the_end_of_the_queues_time_is_no_failure_and_a_lost_launcher_is_one(notes):
    for cause, code, attempts in (("--save_before_end", 75, 1), ("SIGTERM", 7, 3)):
        (notes / "attempts").unlink(missing_ok=True)
        done = run(notes, "torchrun.sh", "--max_restarts=2", CODE="7", PREEMPTED=cause)
        assert done.returncode == code and (notes / "attempts").read_text().count("attempt") == attempts


@pytest.mark.parametrize(
    ("script", "options", "name"),
    [
        ("torchrun.sh", [], "--master_port"),
        ("accelerate_multinode.sh", ["--machine_rank", 0, "--main_process_ip", "127.0.0.1"], "--main_process_port"),
    ],
)
def test_a_busy_port_is_refused_before_anything_starts_by_the_option_of_the_script(notes, script, options, name):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        started = command(script, "--output_dir", "x", *options, name, port)
        done = subprocess.run(started, env=environment(notes), capture_output=True, text=True, timeout=20, check=False)
    assert done.returncode == 2 and f"{name} {port} is taken on this node" in done.stderr
    assert not (notes / "attempts").exists()


def test_what_travels_to_the_nodes_is_private_and_has_no_credentials(notes):
    (notes / "hostfile").write_text("127.0.0.1 slots=1\n")
    # what accelerate's pdsh mode leaves behind is a whole environment
    left = (
        "KEEPS=yes\n\nHF_TOKEN=secret\nAWS_SECRET_ACCESS_KEY=secret\nmy_api_key=secret\nPATH=/elsewhere\n# a comment\n"
    )
    (notes / ".deepspeed_env").write_text(left)
    secrets = {"MLFLOW_TRACKING_PASSWORD": "secret", "NCCL_DEBUG": "WARN", "FINISHES": str(notes / "run")}
    done = run(notes, "deepspeed_multinode.sh", **secrets)
    assert done.returncode == 0, done.stderr
    told = (
        "AWS_SECRET_ACCESS_KEY, HF_TOKEN, MLFLOW_TRACKING_PASSWORD, my_api_key: not carried to the nodes, as pdsh would"
    )
    assert told in done.stderr and "MLflow's in ~/.mlflow/credentials" in done.stderr
    travelled = (notes / "environment").read_text()
    assert (notes / "mode").read_text() == "600\n" and "secret" not in travelled and "PATH=" not in travelled
    assert all(line in travelled for line in ("KEEPS=yes\n", "NCCL_DEBUG=WARN\n", "REFINER_DS_LAUNCHER="))
    assert "\n\n" not in travelled and "#" not in travelled


def test_what_is_a_secret_is_the_same_for_the_script_and_for_doctor():
    assert f"SECRET='{SECRET.pattern}'" in (LAUNCH / "deepspeed_multinode.sh").read_text()


@pytest.mark.parametrize("place", ["variable", "file", "flag"])
def test_an_address_of_mlflow_with_a_password_in_it_is_refused(notes, place):
    (notes / "hostfile").write_text("127.0.0.1 slots=1\n")
    address = "https://me:secret@mlflow.example.com"
    if place == "file":
        (notes / ".deepspeed_env").write_text(f"MLFLOW_TRACKING_URI={address}\n")
    given = ["--tracking_uri", address] if place == "flag" else []
    variables = {"MLFLOW_TRACKING_URI": address} if place == "variable" else {}
    done = run(notes, "deepspeed_multinode.sh", *given, **variables)
    assert done.returncode == 2 and not (notes / "attempts").exists()
    (line,) = done.stderr.splitlines()
    assert "has a password in it" in line and "~/.mlflow/credentials" in line and "secret" not in line


def test_a_host_that_ssh_does_not_reach_is_named(notes):
    (notes / "hostfile").write_text("127.0.0.1 slots=1\ngone slots=1\n")
    done = run(notes, "deepspeed_multinode.sh")
    assert done.returncode == 2 and not (notes / "attempts").exists()
    assert "gone of hostfile cannot be reached by ssh (No route to host), so nothing was started" in done.stderr


def test_a_user_before_the_name_of_a_host_is_ssh_s_and_no_part_of_its_address(notes):
    (notes / "hostfile").write_text("somebody@127.0.0.1 slots=8\n")
    done = run(notes, "deepspeed_multinode.sh", FINISHES=str(notes / "run"))
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
def test_torchrun_sh_trains_two_ranks(shards, tiny_base, tmp_path):
    flags = [
        "--gradient_accumulation_steps",
        2,
        "--shards",
        shards,
        "--pretrained_model_name_or_path",
        tiny_base,
        "--buckets",
        "1.0:64x64,1.5:96x64",
    ]
    flags += [
        "--train_batch_size",
        2,
        "--max_train_steps",
        2,
        "--validation_epochs",
        0,
        "--output_dir",
        tmp_path / "run",
    ]
    flags += ["--deepspeed_config", ZERO2, "--dataloader_num_workers", 1]
    flags += ["--tracking_uri", f"sqlite:///{tmp_path}/mlflow.db"]
    started = command("torchrun.sh", "--nproc_per_node", 2, "--master_port", free_port(), *flags)
    settings = {**os.environ, "PYTHON": sys.executable, "DS_ACCELERATOR": "cpu", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(started, env=settings, cwd=REPO, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    assert json.loads((tmp_path / "run" / "finished.json").read_text()) == {"step": 2}
    assert sorted(losses(tmp_path / "run")) == [1, 2]
