"""`refiner-ds doctor` on healthy hosts and on sick ones.

The hosts are folders of this machine: `ssh` on the PATH is a stand-in for the network, which runs the agent here, where
they are apart in the host's own folder. All else is real: files, ports, processes, a gloo all-reduce, an MLflow store.
"""

import json
import os
import shutil
import socket
import sqlite3
import time
from pathlib import Path

import pytest

from refiner_ds.cli import main

SSH = """#!/bin/bash
# the last two arguments are the host and what its shell shall run
host=${@: -2:1} command=${@: -1}
echo "$*" >> "$SSH_LOG"
case $host in
    unknown) echo "Host key verification failed." >&2; exit 255 ;;
    gone) echo "ssh: connect to host gone port 22: Connection timed out" >&2; exit 255 ;;
esac
echo "Welcome to $host"
[ -z "$APART" ] || command="${command%% && *} && cd $host && ${command#* && }"
exec bash -c "$command"
"""


@pytest.fixture(scope="module")
def cluster(tmp_path_factory, tiny_base, shards):
    """A folder with `bin/ssh`, and what the hosts 127.0.0.1 and localhost share, or have each for itself if apart."""
    home = tmp_path_factory.mktemp("cluster")
    (home / "bin").mkdir()
    (home / "bin/ssh").write_text(SSH)
    (home / "bin/ssh").chmod(0o755)
    for folder in (home, home / "127.0.0.1", home / "localhost"):
        shutil.copytree(shards, folder / "shards")
        shutil.copytree(tiny_base, folder / "base", copy_function=os.link)
    (home / "hostfile").write_text("127.0.0.1 slots=1\nlocalhost slots=1\n")
    return home


@pytest.fixture(scope="module")
def doctor(cluster, refiner_ds_command):
    """`doctor(*arguments)` runs it in the cluster's folder: (process, JSON, seconds)."""

    def run(*arguments: object, apart: bool = False, **more: str):
        report = cluster / "report.json"
        report.unlink(missing_ok=True)
        environment = {"PATH": f"{cluster / 'bin'}:{os.environ['PATH']}", "SSH_LOG": str(cluster / "ssh.log")}
        environment |= {"GLOO_SOCKET_IFNAME": "lo", "APART": "1" if apart else ""}
        environment |= {"PYTHONPATH": str(Path(__file__).parents[2]), **more}
        started = time.monotonic()
        done = refiner_ds_command("doctor", *arguments, "--json", report, cwd=cluster, **environment)
        assert "Traceback" not in done.stderr, done.stderr
        return done, json.loads(report.read_text()), time.monotonic() - started

    return run


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return server.getsockname()[1]


def test_this_machine_alone_is_looked_at_without_ssh(doctor, cluster):
    (cluster / "ssh.log").unlink(missing_ok=True)
    (cluster / "plan.json").write_text('{"disk": {"one": 1000, "count": 3}}')
    done, report, _ = doctor("--master_port", free_port(), "--output_dir", "runs", "--plan", "plan.json")
    assert (done.returncode, report["healthy"]) == (0, True), done.stdout
    checks = {line["check"]: line["text"] for line in report["lines"]}
    assert {"versions", "devices", "host name", "compiler", "master port", "all-reduce"} <= checks.keys()
    assert "2 ranks: 16.8 MB in" in checks["all-reduce"]
    assert checks["disk"].endswith("a checkpoint takes 1.0 kB, and 3 are kept")
    assert "not looked at, as not named: --shards, --pretrained_model_name_or_path, --tracking_uri" in done.stdout
    assert not (cluster / "ssh.log").exists()


@pytest.mark.slow
def test_healthy_hosts_are_green_and_nothing_is_left_on_them(doctor, cluster):
    done, report, _ = doctor(
        *("--hostfile", "hostfile", "--shards", "shards", "--pretrained_model_name_or_path", "base"),
        *("--output_dir", "runs/one", "--master_port", free_port(), "--train_batch_size", 2),
        MLFLOW_TRACKING_URI=f"sqlite:///{cluster}/mlflow.db",
    )
    assert (done.returncode, report["healthy"]) == (0, True), done.stdout
    assert "not looked at" not in done.stdout
    lines = report["lines"]
    for check in ("host", "versions", "devices", "interface", "reachability", "clock", "shards", "base", "disk"):
        assert {line["host"] for line in lines if line["check"] == check} == {"127.0.0.1", "localhost"}, check
    texts = {line["check"]: line["text"] for line in lines}
    assert "gloo, 2 ranks: 16.8 MB in " in texts["all-reduce"] and "/s by each link" in texts["all-reduce"]
    assert (
        texts["output folder"] == "shared by all hosts"
        and "2 x accumulation 20 x 2 ranks = 80" in texts["global batch"]
    )
    assert not (cluster / "runs").exists()
    with sqlite3.connect(cluster / "mlflow.db") as store:
        assert store.execute("select lifecycle_stage from runs").fetchall() == [("deleted",)]


@pytest.fixture(scope="module")
def sick(doctor, cluster):
    """What the doctor says of a cluster in which much is wrong: (process, {(check, host): line}, port)."""
    other = cluster / "localhost"
    index = other / "shards/index.json"
    content = json.loads(index.read_text())
    (other / "shards" / content["shards"][-1]["name"]).write_bytes(b"short")
    weights = other / "base/vae/diffusion_pytorch_model.safetensors"
    weights.unlink()
    weights.write_bytes((cluster / "base/vae/diffusion_pytorch_model.safetensors").read_bytes()[:-1])
    # the agent's own folder comes first on its path, as any environment of a host would
    (other / "diffusers-9.9.dist-info").mkdir()
    (other / "diffusers-9.9.dist-info/METADATA").write_text("Metadata-Version: 2.1\nName: diffusers\nVersion: 9.9\n")
    (cluster / "sick").write_text("127.0.0.1 slots=1\nlocalhost slots=1\nunknown slots=1\ngone slots=1\n")
    (cluster / "batch.json").write_text('{"train_batch_size": 102}')
    (cluster / ".deepspeed_env").write_text("HF_TOKEN=another-secret\n")
    (cluster / "ssh.log").unlink(missing_ok=True)
    with socket.create_server(("", 0)) as server:
        port = server.getsockname()[1]
        done, report, _ = doctor(
            *("--hostfile", "sick", "--shards", "shards", "--pretrained_model_name_or_path", "base"),
            *("--output_dir", "run", "--checkpoints_total_limit", 10**9, "--deepspeed_config", "batch.json"),
            *("--tracking_uri", f"http://me:secret@127.0.0.1:{free_port()}", "--master_port", port),
            apart=True,
        )
    return done, report["lines"], port


@pytest.mark.slow
@pytest.mark.parametrize(
    ("check", "host", "words", "remedy"),
    [
        ("host", "unknown", "Host key verification failed", "ssh-keyscan unknown >> ~/.ssh/known_hosts"),
        ("host", "gone", "Connection timed out", "take it out of the hostfile"),
        ("versions", "localhost", "diffusers 9.9, and 127.0.0.1 has ", "install the same diffusers on all hosts"),
        ("shards", "localhost", "has 5 bytes, and its index says ", "copy the whole folder"),
        ("base", "localhost", "it is cut short or damaged", "download, make or export it again"),
        ("disk", "127.0.0.1", "1000000001 of them", "--checkpoints_total_limit"),
        ("output folder", "localhost", "does not see what 127.0.0.1 puts into it", "a disk that all hosts share"),
        ("mlflow", "127.0.0.1", "(nobody answers there)", "start the server"),
        ("master port", "127.0.0.1", "cannot be taken: Address already in use", "give another --master_port"),
        ("environment", "all", ".deepspeed_env holds HF_TOKEN", "take it out"),
        ("global batch", "all", "102 cannot be shared by 4 ranks", "a number of ranks that divides it"),
    ],
)
def test_what_is_wrong_is_red_on_its_host_with_its_remedy(sick, check, host, words, remedy):
    done, lines, _ = sick
    (line,) = [line for line in lines if (line["check"], line["host"], line["state"]) == (check, host, "fail")]
    assert words in line["text"] and remedy in line["remedy"]
    assert done.returncode == 1 and line["text"] in done.stdout and f"-> {line['remedy']}" in done.stdout


@pytest.mark.slow
def test_what_is_well_stays_green_beside_it_and_nothing_else_is_red(sick):
    _, lines, _ = sick
    red = {(line["check"], line["host"]) for line in lines if line["state"] == "fail"}
    assert len(red) == 12 and ("disk", "localhost") in red, red
    states = {(line["check"], line["host"]): line["state"] for line in lines}
    for check in ("host", "shards", "base", "reachability", "interface"):
        assert states[check, "127.0.0.1"] == "ok"
    assert states["all-reduce", "all"] == "ok"


@pytest.mark.slow
def test_a_password_is_on_no_command_line_and_in_no_word(sick, cluster):
    done, lines, _ = sick
    commands = (cluster / "ssh.log").read_text()
    assert commands.count("refiner_ds.doctor.agent") == 4
    assert "secret" not in commands + done.stdout + done.stderr + json.dumps(lines)


@pytest.mark.slow
def test_other_shards_are_told_by_their_digest(doctor, cluster, dataset, pack_dataset):
    shutil.rmtree(cluster / "localhost/shards")
    pack_dataset(dataset(cluster / "pictures", [(64, 48)] * 3, seed=5), cluster / "localhost/shards")
    done, report, _ = doctor("--hostfile", "hostfile", "--shards", "shards", "--master_port", free_port(), apart=True)
    (line,) = [line for line in report["lines"] if line["check"] == "shards" and line["state"] == "fail"]
    assert line["host"] == "localhost" and line["text"].startswith("shards ") and ", and 127.0.0.1 has " in line["text"]
    assert done.returncode == 1 and "share a folder" in line["remedy"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--hostfile", "none"], "--hostfile none cannot be read"),
        (["--master_port", "70000"], "--master_port 70000 is no port"),
        (["--checkpoints_total_limit", "0"], "--checkpoints_total_limit 0 leaves nothing"),
        (["--deepspeed_config", "none.json"], "--deepspeed_config none.json cannot be read"),
        (["--plan", "none.json"], "--plan none.json is no plan that can be read"),
        (["--plan", "none.json", "--use_ema"], "--use_ema would have no effect beside --plan none.json"),
    ],
)
def test_a_mistake_is_answered_with_one_sentence(arguments, words, capsys):
    assert main(["doctor", *arguments]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"refiner-ds doctor: {words}") and "; " in line
