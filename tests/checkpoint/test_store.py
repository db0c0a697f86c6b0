"""Saving: a checkpoint has its name only when it is whole, and older ones go only after that."""

import json
import threading
from pathlib import Path

import pytest

from refiner_ds.checkpoint.layout import complete_checkpoints
from refiner_ds.checkpoint.store import save
from refiner_ds.world import World


class Files:
    """A writer of plain files, one for each rank, that notes what was complete while it wrote."""

    def __init__(self, rank: int = 0, ranks: threading.Barrier | None = None, fails: bool = False) -> None:
        self.rank, self.ranks, self.fails = rank, ranks, fails
        self.complete_while_writing: list[int] = []

    def save(self, folder: Path, tag: str) -> None:
        self.complete_while_writing = steps_in(folder)
        part = folder / tag / "shards"
        part.mkdir(parents=True, exist_ok=True)
        (part / f"rank{self.rank}.pt").write_bytes(b"s" * (10 + self.rank))
        if self.fails:
            raise OSError(28, "No space left on device")
        (folder / tag / "weights.pt").write_bytes(b"w" * 100)

    def barrier(self) -> None:
        if self.ranks:
            self.ranks.wait(timeout=30)


def steps_in(folder: Path) -> list[int]:
    return [checkpoint.step for checkpoint in complete_checkpoints(folder)]


def names_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def write(folder: Path, step: int, total_limit: int | None = None, writer: Files | None = None) -> list[str]:
    """Saves as a lone rank; returns the warnings."""
    warnings: list[str] = []
    save(writer or Files(), World(), folder, step, {"num_ranks": 1}, total_limit, warnings.append)
    return warnings


def test_the_commit_tells_step_facts_and_every_file_with_its_size(tmp_path):
    write(tmp_path, 7)
    assert names_in(tmp_path) == ["checkpoint-7"]
    commit = json.loads((tmp_path / "checkpoint-7" / "commit.json").read_text())
    assert commit == {"step": 7, "number": 0, "num_ranks": 1, "files": {"shards/rank0.pt": 10, "weights.pt": 100}}
    assert steps_in(tmp_path) == [7]


def test_older_checkpoints_go_once_the_new_one_is_complete_and_not_before(tmp_path):
    for step in (1, 2, 3):
        write(tmp_path, step)
    writer = Files()
    assert write(tmp_path, 4, total_limit=2, writer=writer) == []
    assert writer.complete_while_writing == [1, 2, 3]
    assert names_in(tmp_path) == ["checkpoint-3", "checkpoint-4"]


def test_without_a_limit_all_stay(tmp_path):
    for step in (5, 10, 15):
        write(tmp_path, step, total_limit=None)
    assert steps_in(tmp_path) == [5, 10, 15]


def test_what_is_incomplete_is_neither_counted_nor_deleted(tmp_path):
    for step in (1, 2):
        write(tmp_path, step)
    (tmp_path / "checkpoint-1" / "weights.pt").write_bytes(b"cut off")
    write(tmp_path, 3, total_limit=2)
    assert names_in(tmp_path) == ["checkpoint-1", "checkpoint-2", "checkpoint-3"]


def test_a_writer_that_fails_leaves_the_older_checkpoints_alone(tmp_path):
    write(tmp_path, 1)
    with pytest.raises(OSError, match="No space left"):
        write(tmp_path, 2, total_limit=1, writer=Files(fails=True))
    assert steps_in(tmp_path) == [1] and not (tmp_path / "checkpoint-2").exists()
    write(tmp_path, 2, total_limit=1)
    assert names_in(tmp_path) == ["checkpoint-2"], "the next attempt clears what the failed one left"


def test_what_a_killed_run_was_writing_does_not_get_into_the_checkpoint(tmp_path):
    leftover = tmp_path / ".writing-checkpoint-4"
    leftover.mkdir()
    (leftover / "rank9.pt").write_bytes(b"of another run")
    write(tmp_path, 4)
    assert names_in(tmp_path) == ["checkpoint-4"]
    assert "rank9.pt" not in names_in(tmp_path / "checkpoint-4")


def test_a_step_that_comes_by_again_replaces_its_checkpoint(tmp_path):
    write(tmp_path, 4)
    (tmp_path / "checkpoint-4" / "of_the_first_time").write_text("")
    write(tmp_path, 4)
    assert names_in(tmp_path) == ["checkpoint-4"]
    assert names_in(tmp_path / "checkpoint-4") == ["commit.json", "shards", "weights.pt"]


def test_what_was_just_saved_stays_even_where_checkpoints_of_later_steps_lie(tmp_path):
    for step in (10, 20, 30):
        write(tmp_path, step)
    write(tmp_path, 15, total_limit=2)
    assert 15 in steps_in(tmp_path)


def test_an_old_checkpoint_that_cannot_be_deleted_is_told_and_stops_nothing(tmp_path):
    write(tmp_path, 1)
    (tmp_path / ".deleting-checkpoint-1").write_text("a file is where the doomed folder would go")
    (warning,) = write(tmp_path, 2, total_limit=1)
    assert str(tmp_path / "checkpoint-1") in warning and "delete it by hand" in warning
    assert steps_in(tmp_path) == [1, 2]


def test_all_ranks_write_into_one_checkpoint_that_only_the_main_one_commits(tmp_path):
    meeting = threading.Barrier(3)
    threads = [
        threading.Thread(
            target=save, args=(Files(rank, meeting), World(rank, 3), tmp_path, 9, {"num_ranks": 3}, None, print)
        )
        for rank in range(3)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=60)
    assert names_in(tmp_path) == ["checkpoint-9"]
    (found,) = complete_checkpoints(tmp_path)
    sizes = {f"shards/rank{rank}.pt": 10 + rank for rank in range(3)}
    assert found.commit["files"] == {**sizes, "weights.pt": 100}
