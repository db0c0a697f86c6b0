"""Tracking: the journal keeps everything, and the shipper brings it to a real MLflow server exactly once."""

import json
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request

import pytest
from mlflow import MlflowClient
from PIL import Image

from refiner_ds.state import FINISHED
from refiner_ds.tracking.journal import SETTINGS, Journal, read_metrics


@pytest.fixture
def run_folder(tmp_path):
    folder = tmp_path / "lastnight"
    folder.mkdir()
    (folder / SETTINGS).write_text(json.dumps({"train": {"seed": 3}, "deepspeed": {"zero_optimization": {"stage": 2}}}))
    return folder


def _ship(folder, uri, *more):
    environment = {**os.environ, "MLFLOW_TRACKING_URI": uri}
    command = [sys.executable, "-m", "refiner_ds.tracking.ship", str(folder), *more]
    return subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True)


def _history(uri, folder, name):
    run = json.loads((folder / "tracking.json").read_text())["run_id"]
    return [(metric.step, metric.value) for metric in MlflowClient(uri).get_metric_history(run, name)]


def test_the_journal_gives_back_what_was_written_to_the_last_bit(run_folder):
    journal = Journal(run_folder)
    journal.metrics(1, {"train/loss": 0.1 + 0.2})
    journal.metrics(2, {"train/loss": 1 / 3, "train/lr": 1e-4})
    journal.picture(2, "validation/a.png")
    journal.metrics(2, {"train/loss": 0.25})  # a resumed run came by again
    assert read_metrics(run_folder) == {"train/loss": {1: 0.1 + 0.2, 2: 0.25}, "train/lr": {2: 1e-4}}


class Server:
    """A real `mlflow server` on loopback."""

    def __init__(self, folder):
        self._folder = folder
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self._port = probe.getsockname()[1]
        self.uri = f"http://127.0.0.1:{self._port}"
        self._process = None

    def start(self):
        command = ["-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(self._port), "--workers", "1"]
        command += [
            "--backend-store-uri",
            f"sqlite:///{self._folder}/server.db",
            "--artifacts-destination",
            f"{self._folder}/artifacts",
        ]
        environment = {**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
        log = (self._folder / "server.log").open("a")
        self._process = subprocess.Popen(
            [sys.executable, *command], env=environment, stdout=log, stderr=log, start_new_session=True
        )
        for _ in range(240):
            try:
                with urllib.request.urlopen(f"{self.uri}/health", timeout=1):
                    return
            except (urllib.error.URLError, OSError):
                time.sleep(0.5)
        raise AssertionError((self._folder / "server.log").read_text()[-2000:])

    def stop(self):
        if self._process:
            os.killpg(self._process.pid, 9)
            self._process.wait()
            self._process = None


@pytest.fixture
def server(tmp_path):
    made = Server(tmp_path)
    yield made
    made.stop()


@pytest.mark.slow
def test_every_line_arrives_once_in_one_run_though_the_server_comes_late_and_the_job_resumes(run_folder, server):
    journal = Journal(run_folder)
    for step in range(1, 51):
        journal.metrics(step, {"train/loss": 1 / step, "train/lr": 1e-4})
    early = _ship(run_folder, server.uri, "--trainer", str(os.getpid()))
    time.sleep(8)  # long enough to have been refused at least once
    server.start()
    (run_folder / "validation").mkdir()
    Image.new("RGB", (8, 6), "red").save(run_folder / "validation" / "a.png")
    journal.picture(50, "validation/a.png")
    (run_folder / FINISHED).write_text("{}")
    _, complaints = early.communicate(timeout=120)
    assert early.returncode == 0
    assert "does not take the metrics" in complaints and complaints.count("tracking:") == 1
    assert _history(server.uri, run_folder, "train/loss") == [(step, 1 / step) for step in range(1, 51)]

    first_run = json.loads((run_folder / "tracking.json").read_text())["run_id"]
    journal.metrics(51, {"train/loss": 0.5})
    late = _ship(run_folder, server.uri)
    assert late.wait(timeout=120) == 0
    assert _history(server.uri, run_folder, "train/loss")[-1] == (51, 0.5)
    assert len(_history(server.uri, run_folder, "train/loss")) == 51
    client = MlflowClient(server.uri)
    assert json.loads((run_folder / "tracking.json").read_text())["run_id"] == first_run
    run = client.get_run(first_run)
    assert run.info.status == "FINISHED" and run.data.params["deepspeed.zero_optimization.stage"] == "2"
    assert {artifact.path for artifact in client.list_artifacts(first_run)} == {SETTINGS, "images"}


def test_no_credential_shows_in_the_process_list_or_the_log(run_folder):
    uri = "http://anna:secret@127.0.0.1:9"  # nobody listens there
    Journal(run_folder).metrics(1, {"train/loss": 1.0})
    shipper = _ship(run_folder, uri, "--trainer", str(os.getpid()))
    try:
        line = shipper.stderr.readline()
        with open(f"/proc/{shipper.pid}/cmdline") as file:
            assert "secret" not in file.read()
    finally:
        shipper.kill()
        shipper.wait()
    assert "does not take the metrics" in line and "secret" not in line
