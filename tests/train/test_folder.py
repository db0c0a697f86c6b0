"""The folder of a run: its own is taken, all others are refused by name, and resuming finds the right checkpoint."""

import json
import platform
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from refiner_ds.errors import UserError
from refiner_ds.train.folder import candidates, require_own, write_settings
from refiner_ds.train.lock import Lock
from tests.checkpoint.made import save

IDENTITY = {"shards_digest": "0123456789abcdef", "base": "models/base", "seed": 0, "global_batch_size": 8}
CUT = {"num_ranks": 2, "precision": "bf16", "stage": 2, "optimizer": "AdamW"}


@pytest.fixture
def run(tmp_path):
    """The folder of a run of two ranks with checkpoints of the steps 5 and 10."""
    folder = tmp_path / "run"
    write_settings(folder, {"identity": IDENTITY})
    save(folder, 5, 10, **{**IDENTITY, **CUT})
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


def test_candidates_are_the_complete_checkpoints_newest_first(run, tmp_path):
    assert [found.step for found in candidates(run, "latest", CUT, IDENTITY)] == [10, 5]
    (run / "checkpoint-10" / "rank-00001.safetensors").write_bytes(b"cut")
    assert [found.step for found in candidates(run, "latest", CUT, IDENTITY)] == [5]
    assert candidates(tmp_path / "new", "latest", CUT, IDENTITY) == []


@pytest.mark.parametrize("whole", [True, False])
def test_a_checkpoint_can_be_named_by_its_path_or_within_the_run(run, whole):
    (found,) = candidates(run, str(run / "checkpoint-5") if whole else "checkpoint-5", CUT, IDENTITY)
    assert (found.step, found.path) == (5, run / "checkpoint-5")


def test_a_checkpoint_that_is_not_there_or_not_whole_is_refused_by_name(run):
    (run / "checkpoint-5" / "commit.json").unlink()
    for choice in ("checkpoint-7", "checkpoint-5", "newest"):
        words = (
            rf"--resume_from_checkpoint {choice} is no complete checkpoint.*name a checkpoint-STEP folder, or 'latest'"
        )
        with pytest.raises(UserError, match=words):
            candidates(run, choice, CUT, IDENTITY)


@pytest.mark.parametrize("choice", ["latest", "checkpoint-5"])
def test_a_checkpoint_of_another_run_is_refused_by_the_first_setting_that_differs(run, choice):
    words = r"checkpoint-\d+ belongs to another run: its seed is 0 and this one's is 1; name another folder"
    with pytest.raises(UserError, match=words):
        candidates(run, choice, CUT, {**IDENTITY, "seed": 1, "global_batch_size": 16})


def test_another_global_batch_is_refused_with_the_way_back_to_it(run):
    words = r"its global_batch_size is 8 and this one's is 16; .*--gradient_accumulation_steps so that .* make 8 again"
    with pytest.raises(UserError, match=words):
        require_own(run, {**IDENTITY, "global_batch_size": 16})


def test_other_shards_are_told_and_only_taken_with_a_flag(run):
    other = {**IDENTITY, "shards_digest": "another"}
    words = r"its shards_digest is 0123456789abcdef and this one's is another; .*--accept_other_shards"
    with pytest.raises(UserError, match=words):
        require_own(run, other)
    with pytest.raises(UserError, match=words):
        candidates(run, "latest", CUT, other)
    require_own(run, other, takes_other_shards=True)
    assert len(candidates(run, "latest", CUT, other, takes_other_shards=True)) == 2


@pytest.mark.parametrize("other", [{"num_ranks": 4}, {"precision": "fp16"}, {"stage": 1}])
def test_other_ranks_precisions_and_stages_are_taken(run, other):
    assert len(candidates(run, "latest", {**CUT, **other}, IDENTITY)) == 2


def test_another_optimizer_is_refused_with_both_names(run):
    words = r"checkpoint-10 cannot be continued: its optimizer is AdamW and this one's is SGD, whose moments are not"
    with pytest.raises(UserError, match=words):
        candidates(run, "latest", {**CUT, "optimizer": "SGD"}, IDENTITY)


@pytest.mark.parametrize(("name", "other"), [("num_ranks", 4), ("stage", 1)])
def test_moments_of_8_bits_are_taken_only_as_they_were_cut(tmp_path, name, other):
    held = {**CUT, "optimizer": "AdamW8bit"}
    save(tmp_path, 5, **{**IDENTITY, **held})
    assert len(candidates(tmp_path, "latest", held, IDENTITY)) == 1
    with pytest.raises(
        UserError, match=rf"its {name} is {held[name]} and this one's is {other}, and moments of 8 bits"
    ):
        candidates(tmp_path, "latest", {**held, name: other}, IDENTITY)


def test_two_jobs_cannot_hold_one_folder_and_a_dead_one_holds_none(tmp_path):
    program = (
        "import sys, pathlib; from refiner_ds.train.lock import Lock\n"
        "lock = Lock(pathlib.Path(sys.argv[1]), print); print('held', flush=True); input(); lock.announce_end()\n"
        "print('ends', flush=True); input()"
    )
    command = [sys.executable, "-c", program, tmp_path / "run"]
    first = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0)
    assert first.stdout.readline() == b"held\n"
    with pytest.raises(UserError, match=rf"is being trained in by another job \(process {first.pid} on "):
        Lock(tmp_path / "run", print)
    first.stdin.write(b"\n")
    assert first.stdout.readline() == b"ends\n"
    told: list[str] = []
    threading.Timer(0.5, first.kill).start()
    Lock(tmp_path / "run", told.append)
    assert told == [f"waiting for the job before (process {first.pid} on {platform.node()}), which is ending"]
    first.wait()


def test_the_settings_lie_beside_the_run(tmp_path):
    folder = tmp_path / "deep" / "run"
    write_settings(folder, {"identity": IDENTITY, "train": {"output_dir": Path("runs/a"), "best_metric": "ssim"}})
    settings = json.loads((folder / "run.json").read_text())
    assert settings == {"identity": IDENTITY, "train": {"output_dir": "runs/a", "best_metric": "ssim"}}
    assert [path.name for path in folder.iterdir()] == ["run.json"]


def test_a_run_that_died_before_it_wrote_anything_can_be_started_again(tmp_path):
    Lock(tmp_path / "run", print)
    require_own(tmp_path / "run", IDENTITY)
