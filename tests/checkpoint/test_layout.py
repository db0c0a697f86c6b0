"""What counts as a checkpoint: committed, every file of its size, under a checkpoint's name."""

import json
from pathlib import Path

import google_crc32c
import pytest

from refiner_ds.checkpoint.layout import (
    complete_checkpoints,
    damage,
    incomplete_checkpoints,
    name_of,
    read,
    read_commit,
    what_lacks,
)

CONTENTS = {"rank-00000.safetensors": b"w" * 100, "rank-00001.safetensors": b"o" * 30}


def write(folder: Path, name: str, **facts: object) -> Path:
    """A complete checkpoint of two files."""
    path = folder / name
    path.mkdir(parents=True)
    for file, content in CONTENTS.items():
        (path / file).write_bytes(content)
    files = {file: [len(content), google_crc32c.value(content)] for file, content in CONTENTS.items()}
    (path / "commit.json").write_text(json.dumps({"number": 0, "files": files, **facts}))
    return path


def test_a_complete_checkpoint_tells_its_step_size_and_facts(tmp_path):
    path = write(tmp_path, name_of(120), step=120, num_ranks=2)
    found = read(path)
    assert found is not None and (found.path, found.step, found.nbytes) == (path, 120, 130)
    assert found.commit["num_ranks"] == 2 and what_lacks(path) == ""


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda path: (path / "commit.json").unlink(), "it has no commit.json"),
        (lambda path: (path / "commit.json").write_text('{"step": 5'), "its commit.json is damaged"),
        (lambda path: (path / "commit.json").write_text('{"step": 5}'), "its commit.json is damaged"),
        (
            lambda path: (path / "commit.json").write_text('{"step": 5, "files": {"a": 3}}'),
            "its commit.json is damaged",
        ),
        (lambda path: (path / "commit.json").write_text("[]"), "its commit.json is damaged"),
        (lambda path: (path / "rank-00000.safetensors").unlink(), "rank-00000.safetensors is missing"),
        (
            lambda path: (path / "rank-00000.safetensors").write_bytes(b"w" * 99),
            "rank-00000.safetensors has 99 bytes of 100",
        ),
        (lambda path: (path / "rank-00001.safetensors").write_bytes(b""), "rank-00001.safetensors has 0 bytes of 30"),
    ],
    ids=["no commit", "half a commit", "no files", "files of another format", "list", "lost", "shorter", "empty"],
)
def test_anything_less_is_no_checkpoint_and_says_what_it_lacks(tmp_path, spoil, words):
    write(tmp_path, name_of(3), step=3)
    path = write(tmp_path, name_of(5), step=5)
    spoil(path)
    assert read(path) is None and what_lacks(path) == words
    assert [checkpoint.step for checkpoint in complete_checkpoints(tmp_path)] == [3]
    assert incomplete_checkpoints(tmp_path) == {path: words}


@pytest.mark.parametrize(
    "name",
    ["checkpoint-5-old", ".writing-checkpoint-5", "checkpoint-", "checkpoint-last", "checkpoint-500", "checkpoint-005"],
)
def test_what_has_another_name_than_its_step_is_no_checkpoint(tmp_path, name):
    path = write(tmp_path, name_of(5), step=5).rename(tmp_path / name)
    assert complete_checkpoints(tmp_path) == [] and read(path) is None
    assert read_commit(path).step == 5, "and yet its content is all there"


def test_a_folder_with_the_name_of_another_step_says_so(tmp_path):
    path = write(tmp_path, name_of(500), step=5)
    assert what_lacks(path) == "its commit.json is of checkpoint-500 no more"
    (tmp_path / "checkpoint-7").write_text("a file")
    (tmp_path / "checkpoint-last").mkdir()
    assert set(incomplete_checkpoints(tmp_path)) == {path}


def test_checkpoints_come_in_the_order_of_writing_whatever_their_numbers(tmp_path):
    for number, step in enumerate((90, 200, 1000, 150)):  # the last after a return to an older one
        write(tmp_path, name_of(step), step=step, number=number)
    (tmp_path / "checkpoint-7").write_text("a file")
    assert [checkpoint.step for checkpoint in complete_checkpoints(tmp_path)] == [90, 200, 1000, 150]


def test_a_folder_without_checkpoints_or_none_at_all_has_none(tmp_path):
    assert complete_checkpoints(tmp_path) == [] == complete_checkpoints(tmp_path / "nothing")
    assert read(tmp_path / "nothing") is None
    assert incomplete_checkpoints(tmp_path) == {} == incomplete_checkpoints(tmp_path / "nothing")


def test_damage_is_found_by_reading_and_only_in_the_files_asked_for(tmp_path):
    path = write(tmp_path, name_of(5), step=5)
    found = read(path)
    assert [*damage(found, CONTENTS)] == []
    (path / "rank-00001.safetensors").write_bytes(b"o" * 29 + b"p")
    assert read(path) == found, "its size is right"
    assert [*damage(found, ["rank-00000.safetensors"])] == []
    (fault,) = damage(found, CONTENTS)
    assert fault == "rank-00001.safetensors is not what was written (its CRC-32C differs)"
    (path / "rank-00000.safetensors").unlink()
    first, _ = damage(found, CONTENTS)
    assert first == "rank-00000.safetensors cannot be read (No such file or directory)"
