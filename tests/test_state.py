"""state.json: at any time it says what a run is doing, and what ended it; marks stand for good ends alone."""

import json
import os
import platform

from refiner_ds import state
from refiner_ds.state import FINISHED, STATE, STOPPED, StateFile, fail, read_state


def told(folder):
    return json.loads((folder / STATE).read_text())


def test_a_run_is_told_from_its_begin_to_its_end_and_anew(tmp_path):
    file = StateFile(tmp_path)
    file.begin(40)
    begun = told(tmp_path)
    assert (begun["state"], begun["step"], begun["steps"], begun["exit_code"]) == ("running", 0, 40, None)
    assert (begun["host"], begun["process"]) == (platform.node(), os.getpid())
    file.reach(0, is_first=True)
    file.preempt(7, "SIGTERM")
    assert json.loads((tmp_path / STOPPED).read_text()) == {"step": 7, "cause": "SIGTERM"}
    assert {name: told(tmp_path)[name] for name in ("state", "step", "cause", "exit_code")} == {
        "state": "preempted", "step": 7, "cause": "SIGTERM", "exit_code": 75,
    }  # fmt: skip

    again = StateFile(tmp_path)
    again.begin(40)
    assert (told(tmp_path)["state"], told(tmp_path)["step"], told(tmp_path)["cause"]) == ("running", 7, "")
    assert (tmp_path / STOPPED).exists(), "until it is known that the start goes well"
    again.reach(7, is_first=True)
    assert not (tmp_path / STOPPED).exists()
    again.finish(40)
    assert (told(tmp_path)["state"], told(tmp_path)["step"], told(tmp_path)["exit_code"]) == ("finished", 40, 0)
    assert sorted(path.name for path in tmp_path.iterdir()) == [FINISHED, STATE]
    again.fail("a fault of its last second", 1)
    fail(tmp_path, "the same, as its warden sees it", 1)
    assert told(tmp_path)["state"] == "finished"


def test_a_start_that_is_refused_does_not_take_its_end_from_a_finished_run(tmp_path):
    file = StateFile(tmp_path)
    file.begin(40)
    file.finish(40)
    again = StateFile(tmp_path)
    again.begin(40)
    again.fail("its base is gone", 2)
    assert told(tmp_path)["state"] == "finished" and (tmp_path / FINISHED).exists()
    assert again.before.step == 40
    third = StateFile(tmp_path)
    third.begin(60)
    third.reach(40, is_first=True)
    assert (told(tmp_path)["state"], told(tmp_path)["steps"]) == ("running", 60) and not (tmp_path / FINISHED).exists()


def test_the_step_is_told_now_and_then(tmp_path, monkeypatch):
    file = StateFile(tmp_path)
    file.begin(40)
    file.reach(0, is_first=True)
    file.reach(1)
    assert told(tmp_path)["step"] == 0
    monkeypatch.setattr(state, "SECONDS_BETWEEN", 0.0)
    file.reach(2)
    assert told(tmp_path)["step"] == 2


def test_a_failure_is_told_with_its_cause_and_what_another_knows_of_it_stands(tmp_path):
    file = StateFile(tmp_path / "run")
    file.fail("no base", 2)
    fail(tmp_path / "run", "no base", 2)
    assert not (tmp_path / "run").exists(), "of a folder that was never its own"
    (tmp_path / "run").mkdir()
    file.begin(40)
    file.fail("RuntimeError: connection closed by peer", 1)
    fail(tmp_path / "run", "rank 1 of 2 on hostb was killed by SIGKILL", 1)
    found = read_state(tmp_path / "run")
    assert (found.state, found.cause, found.exit_code) == ("failed", "rank 1 of 2 on hostb was killed by SIGKILL", 1)
    assert not (tmp_path / "run" / FINISHED).exists()


def test_what_cannot_be_read_tells_nothing(tmp_path):
    assert read_state(tmp_path) is None
    (tmp_path / STATE).write_text('{"state": "run')
    assert read_state(tmp_path) is None
