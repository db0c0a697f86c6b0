"""`refiner-ds status`: says how a run is doing, by files as training writes them."""

import json
import time

import pytest

from refiner_ds.cli import main
from refiner_ds.state import StateFile, fail
from refiner_ds.tracking import journal as journals
from refiner_ds.tracking.journal import Journal
from refiner_ds.tracking.shipped import Shipped
from refiner_ds.train.folder import write_settings
from refiner_ds.train.lock import Lock
from refiner_ds.verbs.status import status
from tests.checkpoint.made import save

READ = {
    "train/pairs_per_s": 3.5, "train/mfu": 0.25, "train/data_wait": 0.02, "train/memory_gb": 1.5,
    "train/skipped_steps": 0, "train/bad_samples": 0,
}  # fmt: skip
START = 1_000_000.0
"""When the run of these tests has started, in seconds since 1970."""


@pytest.fixture
def clock(monkeypatch):
    """Time as the run sees it: `clock(seconds)` sets it, counted from its start."""

    def set_to(seconds):
        monkeypatch.setattr(journals.time, "time", lambda: START + seconds)

    set_to(0)
    return set_to


@pytest.fixture
def run_folder(tmp_path, clock):
    """A run of 100 steps that has made 40 at 3 s each, read at every tenth, and validated twice."""
    folder = tmp_path / "run"
    file = StateFile(folder)
    folder.mkdir()
    file.begin(100)
    write_settings(folder, {"train": {"best_metric": "ssim"}})
    journal = Journal(folder)
    for step in range(1, 41):
        clock(3 * (step + -step % 10))
        journal.metrics(step, {"train/loss": 1 / step, **(READ if step % 10 == 0 else {})})
        if step % 20 == 0:
            figures = {"val/psnr": 20 + step / 40, "val/ssim": 0.6 - step / 1000, "val/render_psnr": 18.0}
            journal.metrics(step, {**figures, "val/render_ssim": 0.5})
            journal.picture(step, "validation/a.png")
    save(folder, 20, 40)
    Shipped("0123abcd", "http://mlflow:5000", 100).note(folder)
    return folder


def answered(capsys, *arguments):
    code = main(["status", *map(str, arguments)])
    return code, capsys.readouterr().out


def test_a_run_that_goes_on_is_told_with_its_pace_and_what_is_left(run_folder, clock, capsys):
    lock = Lock(run_folder, print)
    told = status(run_folder, START + 126)
    assert told["state"] == "running" and (told["step"], told["steps"]) == (40, 100)
    assert told["seconds_per_step"] == pytest.approx(3) and told["seconds_left"] == pytest.approx(60 * 3 - 6)
    assert not told["stands_still"] and told["seconds_silent"] == pytest.approx(6)
    assert told["loss"] == pytest.approx(sum(1 / step for step in range(1, 41)) / 40)
    assert (told["validation"]["step"], told["validation"]["best_step"]) == (40, 20), "by SSIM, as the run was told"
    assert told["checkpoints"] == {"newest": 40, "steps": [20, 40]}
    clock(126)
    code, said = answered(capsys, run_folder)
    assert code == 0 and f"{run_folder}: running, since 126 s" in said.replace("2 min", "126 s")
    assert "40 of 100 (40%), about 3 min left" in said
    assert "step 40: PSNR 21.00 dB (+3.00 to the render), SSIM 0.5600; the best by val/ssim was step 20 (0.58)" in said
    size = (run_folder / "metrics.jsonl").stat().st_size - 100
    assert f"run 0123abcd at http://mlflow:5000, {size / 1000:.1f} kB of metrics.jsonl not sent yet" in said
    del lock


def test_a_run_that_tells_nothing_for_long_is_said_to_stand_still(run_folder, clock, capsys):
    lock = Lock(run_folder, print)
    assert not status(run_folder, START + 120 + 149)["stands_still"]
    assert status(run_folder, START + 120 + 151)["stands_still"], "five times the longest silence of 30 s"
    clock(120 + 600)
    assert "nothing has been told for 10 min" in answered(capsys, run_folder)[1]
    del lock


def test_a_validation_takes_its_time_as_long_as_it_goes_on(run_folder, clock, capsys):
    lock, file = Lock(run_folder, print), StateFile(run_folder)
    file.begin(100)
    with file.validating():
        clock(3000)
        file.beat()
        told = status(run_folder, START + 3050)
        assert (told["doing"], told["stands_still"], told["seconds_silent"]) == ("validating", False, 50)
        assert status(run_folder, START + 3000 + 601)["stands_still"]
        assert f"{run_folder}: running, validating, since" in answered(capsys, run_folder)[1]
    told = status(run_folder, START + 3050)
    assert (told["doing"], told["stands_still"], told["seconds_silent"]) == ("training", False, 50)
    del lock


def test_a_start_is_judged_by_its_own_readings_and_what_it_makes_again_does_not_count(run_folder, clock):
    clock(10_000)
    file = StateFile(run_folder)
    file.begin(100)
    file.reach(20, is_first=True)  # from the checkpoint of step 20, hours later
    lock = Lock(run_folder, print)
    told = status(run_folder, START + 10_050)
    assert told["step"] == 20 and told["loss"] == pytest.approx(sum(1 / step for step in range(1, 21)) / 20)
    assert "seconds_left" not in told and not told["stands_still"] and told["validation"]["step"] == 20
    assert status(run_folder, START + 12_000)["stands_still"], "before its first reading too"
    journal = Journal(run_folder)
    for step in (30, 35):
        clock(10_000 + 4 * (step - 20))
        journal.metrics(step, {"train/loss": 0.5, **READ})
    told = status(run_folder, START + 10_061)
    assert told["seconds_per_step"] == pytest.approx(4) and told["seconds_left"] == pytest.approx(65 * 4 - 1)
    del lock


def test_a_run_that_nobody_holds_is_lost(run_folder, capsys):
    code, said = answered(capsys, run_folder)
    assert code == 1 and f"{run_folder}: lost" in said
    assert "the same command continues from step 40" in said and "left" not in said


def test_ends_are_told_with_their_cause_and_an_exit_code(run_folder, capsys):
    fail(run_folder, "rank 1 of 2 on hostb was killed by SIGKILL", 1)
    code, said = answered(capsys, run_folder)
    assert code == 1 and "failed" in said and "rank 1 of 2 on hostb was killed by SIGKILL" in said
    for end, expected in ((lambda file: file.preempt(40, "SIGUSR1"), 75), (lambda file: file.finish(100), 0)):
        file = StateFile(run_folder)
        file.begin(100)
        end(file)
        code, said = answered(capsys, run_folder, "--json", "-")
        told = json.loads(said)
        assert (code, told["exit_code"]) == (expected, expected)
    assert (told["state"], told["step"]) == ("finished", 100)


def test_a_run_before_its_first_step_and_a_folder_of_none(tmp_path, capsys):
    folder = tmp_path / "run"
    folder.mkdir()
    StateFile(folder).begin(10)
    lock = Lock(folder, print)
    code, said = answered(capsys, folder, "--json", tmp_path / "deep" / "told.json")
    assert code == 0 and "0 of 10" in said
    assert json.loads((tmp_path / "deep" / "told.json").read_text())["started"] == pytest.approx(time.time(), abs=60)
    del lock
    assert main(["status", str(tmp_path)]) == 2
    assert "tells of no run (state.json is not there)" in capsys.readouterr().err
