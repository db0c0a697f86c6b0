"""The shipper brings a run to a real MLflow server: every line once, in one run, whatever happens to either."""

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter

import pytest
from mlflow import MlflowClient
from PIL import Image

from refiner_ds.cli import main
from refiner_ds.state import StateFile, fail
from refiner_ds.tracking.journal import SETTINGS, Journal
from refiner_ds.tracking.ship import LOCK, send
from tests.tracking.server import Server, Weather

IDENTITY = {"shards_digest": "0123456789abcdef", "pretrained_model_name_or_path": "somebody/base"}
TOLD = {
    "identity": IDENTITY,
    "train": {"seed": 3, "shards": "/data/streets"},
    "deepspeed": {"zero_optimization": {"stage": 2}},
    "data": {"training_samples": 20, "held_out_samples": 4},
    "whereabouts": {"hosts": "node0, node1", "devices": "16 x NVIDIA H200", "commit": "abc123"},
}


@pytest.fixture
def run_folder(tmp_path):
    """A run that has begun and has told nothing yet."""
    folder = tmp_path / "lastnight"
    folder.mkdir()
    (folder / SETTINGS).write_text(json.dumps(TOLD))
    StateFile(folder).begin(100)
    return folder


def ship(folder, uri, trainer=None):
    environment = {**os.environ, "MLFLOW_TRACKING_URI": uri}
    command = [sys.executable, "-m", "refiner_ds.tracking.ship", str(folder), "--trainer", str(trainer or os.getpid())]
    return subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True)


def finish(folder):
    file = StateFile(folder)
    file.begin(100)
    file.finish(100)


def run_of(folder):
    return json.loads((folder / "tracking.json").read_text())["run_id"]


def history(uri, folder, name):
    return [(metric.step, metric.value) for metric in MlflowClient(uri).get_metric_history(run_of(folder), name)]


def counts(uri, folder):
    """How many points there are of each step."""
    client, found = MlflowClient(uri), Counter()
    for metric in client.get_metric_history(run_of(folder), "train/loss"):
        found[metric.step] += 1
    return found


@pytest.fixture(scope="module")
def running(tmp_path_factory):
    """A server that is up."""
    made = Server(tmp_path_factory.mktemp("server"))
    try:
        made.start()
        yield made
    finally:
        made.stop()


@pytest.fixture
def server(tmp_path):
    """A server of a test's own, which it starts."""
    made = Server(tmp_path)
    yield made
    made.stop()


@pytest.mark.slow
def test_every_line_arrives_once_in_one_run_though_the_server_comes_late_and_the_job_resumes(run_folder, server):
    journal = Journal(run_folder)
    for step in range(1, 51):
        journal.metrics(step, {"train/loss": 1 / step, "train/lr": 1e-4, "system/node0/cpu": 0.5})
    early = ship(run_folder, server.uri)
    time.sleep(8)  # long enough to have been refused at least once
    server.start()
    (run_folder / "validation").mkdir()
    Image.new("RGB", (8, 6), "red").save(run_folder / "validation" / "a.png")
    journal.picture(50, "validation/a.png")
    journal.reference(50, "checkpoint", "checkpoint-50")
    finish(run_folder)
    _, complaints = early.communicate(timeout=120)
    assert early.returncode == 0
    assert "does not take the metrics" in complaints and complaints.count("tracking:") == 1
    assert history(server.uri, run_folder, "train/loss") == [(step, 1 / step) for step in range(1, 51)]

    first_run = run_of(run_folder)
    journal.metrics(51, {"train/loss": 0.5})
    assert main(["tracking", "sync", str(run_folder), "--tracking_uri", server.uri]) == 0
    assert history(server.uri, run_folder, "train/loss")[-1] == (51, 0.5)
    assert len(history(server.uri, run_folder, "train/loss")) == 51 and run_of(run_folder) == first_run
    client = MlflowClient(server.uri)
    run = client.get_run(first_run)
    assert run.info.status == "FINISHED" and run.data.params["deepspeed.zero_optimization.stage"] == "2"
    assert {artifact.path for artifact in client.list_artifacts(first_run)} == {SETTINGS, "deepspeed.json", "images"}
    tags = run.data.tags
    assert tags["refiner_ds.checkpoint"] == f"step 50: {run_folder}/checkpoint-50"
    assert (tags["refiner_ds.hosts"], tags["refiner_ds.devices"]) == ("node0, node1", "16 x NVIDIA H200")
    assert (tags["mlflow.source.git.commit"], tags["refiner_ds.state"]) == ("abc123", "finished")
    (used,) = run.inputs.dataset_inputs
    assert (used.dataset.name, used.dataset.digest) == ("streets", IDENTITY["shards_digest"])
    assert json.loads(used.dataset.profile) == TOLD["data"]
    (found,) = client.search_runs([run.info.experiment_id], f"tags.`refiner_ds.shards` = '{used.dataset.digest}'")
    assert found.info.run_id == first_run


@pytest.mark.slow
def test_kills_of_server_and_shipper_lose_no_point_and_double_none(run_folder, server):
    journal, written = Journal(run_folder), 0
    server.start()
    for turn in range(4):
        for _ in range(400):
            written += 1
            journal.metrics(written, {"train/loss": 1 / written, "train/lr": 1e-4})
        process = ship(run_folder, server.uri)
        offset, deadline = _offset(run_folder), time.monotonic() + 90
        while _offset(run_folder) == offset and time.monotonic() < deadline:
            time.sleep(0.01)  # it is in the midst of them
        if turn % 2:
            server.stop()
            time.sleep(1)
            server.start()
        process.send_signal(signal.SIGKILL)
        process.wait()
    finish(run_folder)
    last = ship(run_folder, server.uri)
    assert last.wait(timeout=120) == 0
    assert counts(server.uri, run_folder) == Counter(range(1, written + 1))
    assert [value for _, value in history(server.uri, run_folder, "train/loss")] == [1 / n for n in range(1, 1601)]


def _offset(folder):
    try:
        return json.loads((folder / "tracking.json").read_text())["offset"]
    except (OSError, ValueError, KeyError):
        return 0


@pytest.mark.slow
@pytest.mark.long
def test_a_slow_server_that_errs_gets_every_point_once(run_folder, running):
    weather = Weather(running, fails=0.25, seconds=0.1)
    journal = Journal(run_folder)
    for step in range(1, 1001):
        journal.metrics(step, {"train/loss": 1 / step})
    finish(run_folder)
    process = ship(run_folder, weather.uri)
    try:
        assert process.wait(timeout=240) == 0
    finally:
        process.kill()
        weather.stop()
    assert weather.failed >= 3
    assert counts(running.uri, run_folder) == Counter(range(1, 1001))
    client = MlflowClient(running.uri)
    experiment = client.get_experiment_by_name("refiner_ds").experiment_id
    assert len(client.search_runs([experiment], f"attributes.run_name = '{run_folder.name}'")) == 1


def test_ends_are_told_as_they_are(run_folder, tmp_path):
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    client = MlflowClient(uri)

    def told(goes_on=False):
        send(run_folder, uri, "refiner_ds", goes_on)
        run = client.get_run(run_of(run_folder))
        return run.info.status, run.data.tags.get("refiner_ds.state"), run.data.tags.get("refiner_ds.cause")

    Journal(run_folder).metrics(1, {"train/loss": 1.0})
    assert told(goes_on=True) == ("RUNNING", "running", "")
    assert told() == ("FAILED", "failed", ""), "killed with its host"
    fail(run_folder, "rank 1 of 2 on hostb was killed by SIGKILL", 1)
    assert told() == ("FAILED", "failed", "rank 1 of 2 on hostb was killed by SIGKILL")
    file = StateFile(run_folder)
    file.begin(100)
    file.preempt(7, "SIGUSR1")
    assert told() == ("KILLED", "preempted", "SIGUSR1")
    finish(run_folder)
    assert told() == ("FINISHED", "finished", "")


def test_sync_sends_what_is_missing_and_says_what_hinders_it(run_folder, tmp_path, capsys):
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    sync = ["tracking", "sync", str(run_folder), "--tracking_uri", uri]
    assert main(sync) == 2 and "has no metrics.jsonl, so there is nothing to send" in capsys.readouterr().err
    journal = Journal(run_folder)
    journal.metrics(1, {"train/loss": 1.0})
    (run_folder / SETTINGS).rename(tmp_path / SETTINGS)
    assert main(sync) == 2 and f"has no {SETTINGS}, so there is nothing to send" in capsys.readouterr().err
    (tmp_path / SETTINGS).rename(run_folder / SETTINGS)
    assert main(sync) == 0
    size = (run_folder / "metrics.jsonl").stat().st_size
    assert f"{size} bytes sent to run {run_of(run_folder)} at {uri}" in capsys.readouterr().out
    assert main(sync) == 0 and "0 bytes sent" in capsys.readouterr().out
    sender = "import fcntl, sys; f = open(sys.argv[1], 'w'); fcntl.flock(f, fcntl.LOCK_EX); print(flush=True); input()"
    with subprocess.Popen(
        [sys.executable, "-c", sender, run_folder / LOCK], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as other:
        other.stdout.readline()
        assert main(sync) == 2 and "another process is sending" in capsys.readouterr().err
        other.communicate(b"\n")
    assert main([*sync[:-1], "http://127.0.0.1:9"]) == 1
    told = capsys.readouterr().err
    assert "MLflow at http://127.0.0.1:9 does not take" in told and "metrics.jsonl keeps all of it" in told


def test_no_credential_shows_in_the_process_list_or_the_log(run_folder):
    uri = "http://anna:secret@127.0.0.1:9"  # nobody listens there
    Journal(run_folder).metrics(1, {"train/loss": 1.0})
    shipper = ship(run_folder, uri)
    try:
        line = shipper.stderr.readline()
        with open(f"/proc/{shipper.pid}/cmdline") as file:
            assert "secret" not in file.read()
    finally:
        shipper.kill()
        shipper.wait()
    assert "does not take the metrics" in line and "secret" not in line
