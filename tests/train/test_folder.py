"""The folder of a run: its own is taken, all others are refused by name, and resuming finds the right checkpoint."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from refiner_ds.checkpoint.store import save
from refiner_ds.errors import UserError
from refiner_ds.train.folder import checkpoint_to_resume, hold, require_own, write_finished, write_settings
from refiner_ds.world import World

IDENTITY = {"shards_digest": "0123456789abcdef", "base": "models/base", "seed": 0, "global_batch_size": 8}
SHARDS = {"num_ranks": 2, "precision": "bf16", "stage": 2}


class Files:
    """Writes one file for a checkpoint."""

    def save(self, folder: Path, tag: str) -> None:
        (folder / tag).mkdir()
        (folder / tag / "weights.pt").write_bytes(b"w" * 10)

    def barrier(self) -> None:
        pass


@pytest.fixture
def run(tmp_path):
    """The folder of a run of two ranks with checkpoints of the steps 5 and 10."""
    folder = tmp_path / "run"
    write_settings(folder, {"identity": IDENTITY})
    for step in (5, 10):
        save(Files(), World(), folder, step, {**IDENTITY, **SHARDS}, None, print)
    return folder


def test_a_new_an_empty_and_the_own_folder_are_taken(run, tmp_path):
    for folder in (tmp_path / "new", tmp_path / "empty", run):
        if folder.name == "empty":
            folder.mkdir()
        require_own(folder, dict(IDENTITY))
    assert not (tmp_path / "new").exists()


def test_another_run_is_named_by_the_first_setting_that_differs(run):
    with pytest.raises(
        UserError, match=r"run holds another run: its seed is 0 and this one's is 1; name another folder"
    ):
        require_own(run, {**IDENTITY, "seed": 1, "global_batch_size": 16})


def test_a_run_that_lacks_a_setting_of_ours_is_another(run):
    with pytest.raises(UserError, match=r"its buckets is None and this one's is 1.0:64x64"):
        require_own(run, {**IDENTITY, "buckets": "1.0:64x64"})


def test_a_run_of_before_there_was_a_choice_resized_exactly(run):
    require_own(run, {**IDENTITY, "resampling": "exact"})
    with pytest.raises(UserError, match=r"its resampling is exact and this one's is window"):
        require_own(run, {**IDENTITY, "resampling": "window"})


@pytest.mark.parametrize("content", [None, "{", "[]", '{"train": {}}', '{"identity": 5}'])
def test_files_of_no_run_are_refused_and_left_alone(tmp_path, content):
    (tmp_path / "notes.txt").write_text("mine")
    if content is not None:
        (tmp_path / "run.json").write_text(content)
    with pytest.raises(UserError, match=r"is not empty and holds no run.* mix its files.*name another folder"):
        require_own(tmp_path, IDENTITY)
    assert (tmp_path / "notes.txt").read_text() == "mine"


def test_a_file_is_no_folder_for_a_run(tmp_path):
    (tmp_path / "run").write_text("a file")
    with pytest.raises(UserError, match=r"--output_dir \S*/run .*name another folder"):
        require_own(tmp_path / "run", IDENTITY)


def test_latest_is_the_newest_complete_checkpoint(run):
    found = checkpoint_to_resume(run, "latest", SHARDS, IDENTITY)
    assert found is not None and found.step == 10
    (run / "checkpoint-10" / "weights.pt").write_bytes(b"cut")
    found = checkpoint_to_resume(run, "latest", SHARDS, IDENTITY)
    assert found is not None and found.step == 5


def test_latest_of_a_folder_without_checkpoints_starts_afresh(tmp_path):
    assert checkpoint_to_resume(tmp_path, "latest", SHARDS, IDENTITY) is None
    assert checkpoint_to_resume(tmp_path / "new", "latest", SHARDS, IDENTITY) is None


@pytest.mark.parametrize("whole", [True, False])
def test_a_checkpoint_can_be_named_by_its_path_or_within_the_run(run, whole):
    found = checkpoint_to_resume(run, str(run / "checkpoint-5") if whole else "checkpoint-5", SHARDS, IDENTITY)
    assert found is not None and (found.step, found.path) == (5, run / "checkpoint-5")


def test_a_checkpoint_that_is_not_there_or_not_whole_is_refused_by_name(run):
    (run / "checkpoint-5" / "commit.json").unlink()
    for choice in ("checkpoint-7", "checkpoint-5", "newest"):
        words = (
            rf"--resume_from_checkpoint {choice} is no complete checkpoint.*name a checkpoint-STEP folder, or 'latest'"
        )
        with pytest.raises(UserError, match=words):
            checkpoint_to_resume(run, choice, SHARDS, IDENTITY)


@pytest.mark.parametrize("choice", ["latest", "checkpoint-5"])
def test_a_checkpoint_of_another_run_is_refused_by_the_first_setting_that_differs(run, choice):
    words = r"checkpoint-\d+ belongs to another run: its seed is 0 and this one's is 1; name a checkpoint of this run"
    with pytest.raises(UserError, match=words):
        checkpoint_to_resume(run, choice, SHARDS, {**IDENTITY, "seed": 1, "global_batch_size": 16})


@pytest.mark.parametrize("choice", ["latest", "checkpoint-5"])
@pytest.mark.parametrize(("name", "other"), [("num_ranks", 4), ("precision", "fp16"), ("stage", 1)])
def test_shards_that_do_not_fit_are_refused_with_both_values(run, choice, name, other):
    words = rf"checkpoint-\d+ cannot be continued: its {name} is {SHARDS[name]} and this one's is {other}"
    with pytest.raises(UserError, match=words):
        checkpoint_to_resume(run, choice, {**SHARDS, name: other}, IDENTITY)


def test_a_commit_that_names_no_optimizer_is_adamws(run):
    assert checkpoint_to_resume(run, "latest", {**SHARDS, "optimizer": "AdamW"}, IDENTITY) is not None
    words = r"checkpoint-10 cannot be continued: its optimizer is AdamW and this one's is SGD, so its optimizer shards"
    with pytest.raises(UserError, match=words):
        checkpoint_to_resume(run, "latest", {**SHARDS, "optimizer": "SGD"}, IDENTITY)


def test_two_jobs_cannot_hold_one_folder_and_a_dead_one_holds_none(tmp_path):
    program = (
        "import sys, pathlib; from refiner_ds.train.folder import hold\n"
        "hold(pathlib.Path(sys.argv[1])); print('held', flush=True); input()"
    )
    command = [sys.executable, "-c", program, tmp_path / "run"]
    first = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert first.stdout.readline() == b"held\n"
    with pytest.raises(UserError, match="is being trained in by another job"):
        hold(tmp_path / "run")
    first.kill()
    first.wait()
    hold(tmp_path / "run")


def test_the_settings_lie_beside_the_run_and_the_marker_only_at_its_end(tmp_path):
    folder = tmp_path / "deep" / "run"
    write_settings(folder, {"identity": IDENTITY, "train": {"output_dir": Path("runs/a")}})
    settings = json.loads((folder / "run.json").read_text())
    assert settings == {"identity": IDENTITY, "train": {"output_dir": "runs/a"}}
    write_finished(folder, 40)
    assert json.loads((folder / "finished.json").read_text()) == {"step": 40}
    write_settings(folder, settings)
    assert sorted(path.name for path in folder.iterdir()) == ["run.json"]


def test_a_run_that_died_before_it_wrote_anything_can_be_started_again(tmp_path):
    hold(tmp_path / "run")
    require_own(tmp_path / "run", IDENTITY)
