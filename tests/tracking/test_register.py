"""A registered refiner: an MLflow client loads it by name, without refiner_ds, and repairs a picture with it."""

import io
import json
import subprocess
import sys

import pytest
from mlflow import MlflowClient
from PIL import Image

from refiner_ds.cli import main
from refiner_ds.refiners.unclip.refiner import UnclipRefiner
from refiner_ds.tracking.journal import SETTINGS, Journal
from refiner_ds.tracking.register import MlflowException, register
from refiner_ds.tracking.ship import send

CLIENT = """
import sys
import mlflow, pandas as pd
mlflow.set_tracking_uri(sys.argv[1])
model = mlflow.pyfunc.load_model(sys.argv[2])
files = [open(f"{name}.png", "rb").read() for name in ("render", "cond")]
rows = pd.DataFrame({"render": files[:1] * 2, "cond": files[1:] * 2})
repaired = model.predict(rows, params={"seed": 3, "num_inference_steps": 1})["repaired"]
again = model.predict(rows[:1], params={"seed": 4, "num_inference_steps": 1})["repaired"]
assert repaired[0] == repaired[1] != again[0], "each row by itself, from the noise of the seed"
open("repaired.png", "wb").write(repaired[0])
assert not any(name.split(".")[0] == "refiner_ds" for name in sys.modules)
"""


@pytest.fixture
def exported(tiny_base, tmp_path):
    """A refiner as export leaves it."""
    UnclipRefiner(str(tiny_base)).save(tmp_path / "refiner")
    index = tmp_path / "refiner" / "model_index.json"
    index.write_text(json.dumps({**json.loads(index.read_text()), "num_inference_steps": 1, "guidance_scale": 1.0}))
    return tmp_path / "refiner"


@pytest.mark.slow
def test_a_client_of_mlflow_loads_it_by_name_and_repairs_a_picture(exported, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    run = tmp_path / "run"
    run.mkdir()
    (run / SETTINGS).write_text("{}")
    Journal(run).metrics(1, {"train/loss": 1.0})
    send(run, uri, "refiner_ds", goes_on=False)
    command = ["tracking", "register", str(exported), "--name", "streets", "--tracking_uri", uri]
    assert main([*command, "--run", str(run)]) == 0
    assert "is version 1 of streets: mlflow.pyfunc.load_model('models:/streets/1')" in capsys.readouterr().out
    client = MlflowClient(uri)
    own = client.get_model_version("streets", "1")
    assert own.run_id == json.loads((run / "tracking.json").read_text())["run_id"]
    assert client.get_run(own.run_id).info.status == "FAILED", "as it was"
    for name in ("render", "cond"):
        Image.new("RGB", (64, 48), "grey").save(f"{name}.png")
    done = subprocess.run(
        [sys.executable, "-c", CLIENT, uri, "models:/streets/1"],
        capture_output=True, text=True, timeout=240, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    assert Image.open(io.BytesIO((tmp_path / "repaired.png").read_bytes())).size == (64, 48)


@pytest.mark.slow
def test_a_run_of_its_own_tells_that_registration_failed(exported, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    with pytest.raises(MlflowException):
        register(exported, "no:name", uri, "refiner_ds", None)
    client = MlflowClient(uri)
    (own,) = client.search_runs([client.get_experiment_by_name("refiner_ds").experiment_id])
    assert own.info.status == "FAILED"


def test_what_cannot_be_registered_is_refused_in_words(exported, tmp_path, capsys):
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    for name in ("streets/1", "a:b", " "):
        assert main(["tracking", "register", str(exported), "--name", name, "--tracking_uri", uri]) == 2
        assert f"--name '{name}' is none that MLflow gives a model" in capsys.readouterr().err
    command = ["tracking", "register", str(tmp_path), "--name", "streets", "--tracking_uri", uri]
    assert main(command) == 2 and "holds no pipeline (model_index.json is not there)" in capsys.readouterr().err
    command[2] = str(exported)
    assert main([*command, "--run", str(tmp_path)]) == 2
    assert f"`refiner-ds tracking sync {tmp_path}` makes one" in capsys.readouterr().err
    command[-1] = "http://127.0.0.1:9"
    assert main(command) == 1 and "MLflow at http://127.0.0.1:9 does not take" in capsys.readouterr().err
