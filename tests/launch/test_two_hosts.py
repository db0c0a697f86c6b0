"""One run over two hosts, started in each way that launch/ has: the losses are those of one host, to the last bit."""

import contextlib
import json
import sys
import time

import psutil
import pytest

from tests.launch.hosts import Hosts
from tests.train.launch import REPO, free_port, losses

pytestmark = pytest.mark.slow
SECRET = "a-password-that-nobody-may-see"
SHORT = {"--max_train_steps": 3, "--checkpointing_steps": 100}


@pytest.fixture
def hostfile(tmp_path):
    path = tmp_path / "hostfile"
    path.write_text("hosta slots=1\nhostb slots=1\n")
    return path


def command(script: str, given: dict[str, object]) -> list[object]:
    return ["bash", REPO / "launch" / script, *(part for pair in given.items() for part in pair)]


def test_pdsh_starts_both_with_the_environment_but_without_passwords(hosts: Hosts, hostfile, flags, expected, tmp_path):
    """hosta's own name leads to 127.0.1.1, and the home's `.deepspeed_env` has blank lines and a password.

    Arguments that a shell would change arrive as they were given.
    """
    home = tmp_path / "home"
    home.mkdir()
    (home / ".deepspeed_env").write_text(f"\nARRIVES=yes\n\nMLFLOW_TRACKING_PASSWORD={SECRET}\n\n")
    given = {"--hostfile": hostfile, "--master_port": free_port(), **flags, **SHORT, "--output_dir": tmp_path / "run"}
    given["--experiment"] = "a b $HOME 'c' \"d\" 100%"
    variables = {"PYTHON": sys.executable, "HOME": str(home), "MLFLOW_TRACKING_PASSWORD": SECRET}
    job = hosts.a.start(*command("deepspeed_multinode.sh", given), cwd=REPO, **variables)
    lines: set[str] = set()
    caches: dict[str, str] = {}
    deadline = time.monotonic() + 120
    while job.poll() is None and time.monotonic() < deadline:
        lines |= {" ".join(one.info["cmdline"] or []) for one in psutil.process_iter(["cmdline"])}
        for host in (hosts.a, hosts.b):
            for process in host.processes("refiner_ds.train"):
                with contextlib.suppress(psutil.Error):
                    environment = process.environ()
                    assert SECRET not in environment.values() or host is hosts.a
                    if environment.get("ARRIVES") == "yes" and "TORCH_EXTENSIONS_DIR" in environment:
                        caches[host.name] = environment["TORCH_EXTENSIONS_DIR"]
        time.sleep(0.3)
    output, _ = job.communicate(timeout=10)
    assert job.returncode == 0, output[-3000:]
    assert losses(tmp_path / "run") == _first(expected, 3)
    assert json.loads((tmp_path / "run" / "run.json").read_text())["train"]["experiment"] == given["--experiment"]
    assert any("pdsh" in line and "ARRIVES" in line for line in lines) and not any(SECRET in line for line in lines)
    assert caches.keys() == {"hosta", "hostb"}, "what must arrive is with the ranks of both"
    assert all(name in folder for name, folder in caches.items()), (
        "hosts with one home compile into folders of their own"
    )


@pytest.mark.parametrize(
    "way", [*(pytest.param(way, marks=pytest.mark.long) for way in ("deepspeed without ssh", "accelerate")), "torchrun"]
)
def test_a_command_on_each_host_makes_one_run(hosts: Hosts, hostfile, flags, expected, tmp_path, way):
    port, jobs = free_port(), []
    given = {**flags, **SHORT, "--output_dir": tmp_path / "run"}
    for number, host in enumerate((hosts.a, hosts.b)):
        script, own = {
            "deepspeed without ssh": ("deepspeed_multinode.sh", {
                "--hostfile": hostfile, "--node_rank": number, "--master_addr": "10.77.0.1", "--master_port": port,
            }),
            "accelerate": ("accelerate_multinode.sh", {
                "--machine_rank": number, "--main_process_ip": "10.77.0.1", "--main_process_port": port,
                "--num_machines": 2, "--num_processes": 2,
            }),
            "torchrun": ("torchrun.sh", {
                "--nnodes": 2, "--node_rank": number, "--master_addr": "10.77.0.1", "--master_port": port,
            }),
        }[way]  # fmt: skip
        jobs.append(host.start(*command(script, own | given), cwd=REPO, PYTHON=sys.executable))
    outputs = [job.communicate(timeout=120)[0] for job in jobs]
    assert [job.returncode for job in jobs] == [0, 0], "\n".join(output[-2000:] for output in outputs)
    assert losses(tmp_path / "run") == _first(expected, 3)
    assert {path.name for path in (tmp_path / "run" / "logs").iterdir()} == {"rank-00000.log", "rank-00001.log"}
    assert not (REPO / ".deepspeed_env").exists(), "accelerate's pdsh mode, which leaves one, is not ours"


def test_doctor_asks_both_over_ssh_and_lets_them_meet(hosts: Hosts, hostfile, flags, tmp_path):
    asked = ["--hostfile", hostfile, "--shards", flags["--shards"], "--master_port", free_port()]
    asked += ["--output_dir", tmp_path / "run", "--json", tmp_path / "doctor.json"]
    done = hosts.a.run(sys.executable, "-m", "refiner_ds", "doctor", *asked, cwd=REPO)
    assert done.returncode == 0, done.stdout
    lines = json.loads((tmp_path / "doctor.json").read_text())["lines"]
    for check in ("host", "versions", "interface", "reachability", "clock", "shards", "disk"):
        assert {line["host"] for line in lines if line["check"] == check} == {"hosta", "hostb"}, check
    texts = {line["check"]: line["text"] for line in lines}
    assert texts["all-reduce"].startswith("gloo, 2 ranks: ") and texts["output folder"] == "shared by all hosts"


def test_a_host_whose_key_is_unknown_is_refused_at_once(hosts: Hosts, hostfile, flags, tmp_path):
    known = hosts.a.folder / "ssh" / "known_hosts"
    known.unlink()
    given = {"--hostfile": hostfile, **flags, "--output_dir": tmp_path / "run"}
    try:
        done = hosts.a.run(*command("deepspeed_multinode.sh", given), cwd=REPO, seconds=20, PYTHON=sys.executable)
    finally:
        hosts.know_keys(hosts.a)
    assert done.returncode == 2 and not (tmp_path / "run").exists()
    assert done.stdout.count("\n") == 1 and "hosta of " in done.stdout and "ssh-keyscan hosta" in done.stdout


def _first(losses_by_step: dict[int, float], steps: int) -> dict[int, float]:
    return {step: loss for step, loss in losses_by_step.items() if step <= steps}
