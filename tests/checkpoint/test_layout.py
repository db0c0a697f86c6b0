"""What counts as a checkpoint: committed, every file of its size, under a checkpoint's name."""

import json
from pathlib import Path

import pytest

from refiner_ds.checkpoint.layout import complete_checkpoints, name_of, read


def write(folder: Path, name: str, **facts: object) -> Path:
    """A complete checkpoint of two files, one of them in a folder of its own."""
    path = folder / name
    (path / "part").mkdir(parents=True)
    (path / "weights.pt").write_bytes(b"w" * 100)
    (path / "part" / "rank0.pt").write_bytes(b"o" * 30)
    files = {"weights.pt": 100, "part/rank0.pt": 30}
    (path / "commit.json").write_text(json.dumps({"number": 0, "files": files, **facts}))
    return path


def test_a_complete_checkpoint_tells_its_step_and_its_facts(tmp_path):
    path = write(tmp_path, name_of(120), step=120, num_ranks=2)
    found = read(path)
    assert found is not None and (found.path, found.step) == (path, 120)
    assert found.commit["num_ranks"] == 2


@pytest.mark.parametrize(
    "damage",
    [
        lambda path: (path / "commit.json").unlink(),
        lambda path: (path / "commit.json").write_text('{"step": 5'),
        lambda path: (path / "commit.json").write_text('{"step": 5}'),
        lambda path: (path / "weights.pt").unlink(),
        lambda path: (path / "weights.pt").write_bytes(b"w" * 99),
        lambda path: (path / "part" / "rank0.pt").write_bytes(b""),
        lambda path: path.rename(path.with_name("checkpoint-5-old")),
        lambda path: path.rename(path.with_name(".writing-checkpoint-5")),
        lambda path: path.rename(path.with_name("checkpoint-")),
        lambda path: path.rename(path.with_name("checkpoint-last")),
    ],
    ids=["no commit", "half a commit", "no files", "lost", "shorter", "empty", "old", "writing", "nameless", "wordy"],
)
def test_anything_less_is_no_checkpoint(tmp_path, damage):
    write(tmp_path, name_of(3), step=3)
    path = write(tmp_path, name_of(5), step=5)
    damage(path)
    assert read(path) is None
    assert [checkpoint.step for checkpoint in complete_checkpoints(tmp_path)] == [3]


@pytest.mark.parametrize(
    "damage",
    [
        lambda path: (path / "commit.json").write_text("[]"),
        lambda path: path.rename(path.with_name("checkpoint-500")),
        lambda path: path.rename(path.with_name("checkpoint-005")),
    ],
    ids=["list", "renamed", "zeros"],
)
def test_what_only_looks_like_a_checkpoint_is_none(tmp_path, damage):
    path = write(tmp_path, name_of(5), step=5)
    damage(path)
    assert complete_checkpoints(tmp_path) == []


def test_checkpoints_come_in_the_order_of_writing_whatever_their_numbers(tmp_path):
    for number, step in enumerate((90, 200, 1000, 150)):  # the last after a return to an older one
        write(tmp_path, name_of(step), step=step, number=number)
    (tmp_path / "checkpoint-7").write_text("a file")
    assert [checkpoint.step for checkpoint in complete_checkpoints(tmp_path)] == [90, 200, 1000, 150]


def test_a_folder_without_checkpoints_or_none_at_all_has_none(tmp_path):
    assert complete_checkpoints(tmp_path) == [] == complete_checkpoints(tmp_path / "nothing")
    assert read(tmp_path / "nothing") is None
