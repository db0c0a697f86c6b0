"""`refiner-ds evaluate`: what it leaves, for whom, and that two ranks leave what one does."""

import csv
import json

import pytest
from mlflow import MlflowClient

from refiner_ds.cli import main
from refiner_ds.tracking.journal import SETTINGS, Journal
from refiner_ds.tracking.ship import send
from tests.train.launch import free_port, start
from tests.verbs.conftest import SIZE


@pytest.fixture
def manifest(dataset, tmp_path):
    """Five samples of three scenes."""
    path = dataset(tmp_path / "drawn", [SIZE] * 5)
    content = json.loads(path.read_text())
    path.write_text(json.dumps({**content, "scene": ["drive 1", "drive 2", "drive 3", "drive 1", "drive 2"]}))
    return path


def evaluated(folder):
    with (folder / "samples.csv").open(newline="", encoding="utf-8") as file:
        return json.loads((folder / "metrics.json").read_text()), list(csv.DictReader(file))


def test_it_leaves_means_intervals_groups_and_figures_of_each_sample(model, manifest, tmp_path, capsys):
    out = tmp_path / "out"
    assert main(["evaluate", "--model", str(model), "--manifest", str(manifest), "--output", str(out)]) == 0
    told, samples = evaluated(out)
    assert told["samples"] == len(samples) == 5
    for name in ("render", "repaired"):
        psnrs = [float(sample[f"{name}_psnr"]) for sample in samples]
        assert told[name]["psnr"] == pytest.approx(sum(psnrs) / 5)
        low, high = told["intervals"][name]["psnr"]
        assert min(psnrs) <= low <= told[name]["psnr"] <= high <= max(psnrs)
    assert [group["name"] for group in told["scenes"]] == ["drive 1", "drive 2", "drive 3"]
    assert [group["samples"] for group in told["scenes"]] == [2, 2, 1]
    worse = sum(float(sample["gain_psnr"]) < 0 for sample in samples) / 5
    assert told["worse"]["mean"] == pytest.approx(worse)
    report = (out / "report.html").read_text()
    assert all(sample["key"] in report and sample["scene"] in report for sample in samples)
    output = capsys.readouterr()
    assert "render  repaired" in output.out and "of 5 samples have a lower PSNR than before" in output.out
    assert "note: no LPIPS" in output.err and "note: no DINO" in output.err, "their weights are not on this machine"


@pytest.mark.slow
def test_two_ranks_leave_what_one_leaves(model, manifest, tmp_path):
    flags = {"--model": model, "--manifest": manifest, "--output": tmp_path / "one", "--device": "cpu"}
    assert start(["-m", "refiner_ds", "evaluate"], flags).returncode == 0
    started = ["-m", "torch.distributed.run", "--nproc-per-node", "2", "--master-port", free_port(), "-m"]
    done = start([*started, "refiner_ds", "evaluate"], {**flags, "--output": tmp_path / "two"})
    assert done.returncode == 0, done.stdout[-3000:]
    assert done.stdout.count("render  repaired") == 1, "rank 0 alone tells"
    for name in ("metrics.json", "samples.csv", "report.html", "pictures.png"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes(), name


@pytest.mark.slow
def test_an_evaluation_with_its_run_is_nested_in_that_and_told_where_the_server_is_gone(
    model, manifest, tmp_path, capsys, monkeypatch
):
    monkeypatch.chdir(tmp_path)  # where a store of a file keeps artifacts
    uri, run = f"sqlite:///{tmp_path}/mlflow.db", tmp_path / "run"
    run.mkdir()
    (run / SETTINGS).write_text(json.dumps({"train": {"seed": 7}}))
    Journal(run).metrics(1, {"train/loss": 1.0})
    send(run, uri, "refiner_ds", goes_on=False)
    parent = json.loads((run / "tracking.json").read_text())["run_id"]
    evaluate = ["evaluate", "--model", model, "--manifest", manifest, "--run", run, "--output", tmp_path / "out"]
    assert main([*map(str, evaluate)]) == 0
    client = MlflowClient(uri)
    experiment = client.get_run(parent).info.experiment_id
    (found,) = client.search_runs([experiment], f"tags.`mlflow.parentRunId` = '{parent}'")
    told = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert found.data.metrics["repaired/psnr"] == told["repaired"]["psnr"]
    assert found.data.metrics["gain/ssim"] == told["gain"]["ssim"]["mean"] and found.info.status == "FINISHED"
    assert {file.path for file in client.list_artifacts(found.info.run_id)} == {
        "report.html", "metrics.json", "samples.csv",
    }  # fmt: skip
    shipped = json.loads((run / "tracking.json").read_text())
    (run / "tracking.json").write_text(json.dumps({**shipped, "uri": "http://127.0.0.1:9"}))
    capsys.readouterr()
    assert main([*map(str, evaluate)]) == 0
    said = capsys.readouterr().err
    assert "MLflow at http://127.0.0.1:9 does not take the evaluation" in said and "all of it is in" in said
