"""Saving: a checkpoint has its name only when it is whole, and older ones go only after that."""

import json
import shutil
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from refiner_ds.checkpoint import store
from refiner_ds.checkpoint.layout import complete_checkpoints, read
from refiner_ds.checkpoint.place import Place
from refiner_ds.checkpoint.retention import Keep
from refiner_ds.checkpoint.snapshot import MASTER, write_snapshot
from refiner_ds.checkpoint.state import SavedState
from refiner_ds.checkpoint.store import Saver, sweep
from tests.checkpoint.made import SHAPES, as_ranks, evenly, save, values_of


def steps_in(folder: Path) -> list[int]:
    return [checkpoint.step for checkpoint in complete_checkpoints(folder)]


def names_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def require_state_of(folder: Path, step: int) -> None:
    """The checkpoint of a step holds what `save` has saved for it, to the bit."""
    saved, values = SavedState(folder / f"checkpoint-{step}"), values_of(step)
    assert all(torch.equal(saved.whole(name), values[MASTER][name]) for name in SHAPES)


@pytest.fixture
def writer(monkeypatch):
    """`writer(act)` lets `act(path)` happen before a rank's file is written."""

    def let(act):
        def written(path, snapshot):
            act(path)
            return write_snapshot(path, snapshot)

        monkeypatch.setattr(store, "write_snapshot", written)

    return let


def alone(folder: Path, told: list[str], keep: Keep = Keep()) -> Saver:  # noqa: B008 (it is frozen)
    """The saver of a run of one rank."""
    return Saver(folder, Place(0, (0,)), lambda item: [item], keep, {}, told.append)


def begin(saver: Saver, step: int) -> None:
    saver.begin(step, lambda: evenly(values_of(step), 1)[0], {"num_ranks": 1})


@pytest.mark.parametrize("ranks", [1, 2, 3])
def test_all_ranks_write_into_one_checkpoint_whose_commit_tells_every_file(tmp_path, ranks):
    assert save(tmp_path, 7, ranks=ranks) == []
    assert names_in(tmp_path) == ["checkpoint-7"]
    (found,) = complete_checkpoints(tmp_path)
    files = {f"rank-{rank:05d}.safetensors" for rank in range(ranks)}
    assert set(names_in(found.path)) == files | {"commit.json"} == found.commit["files"].keys() | {"commit.json"}
    assert found.nbytes == sum((found.path / name).stat().st_size for name in files)
    assert (found.commit["step"], found.number, found.commit["num_ranks"]) == (7, 0, ranks)
    assert found.commit["elsewhere"] == {} and time.strptime(found.commit["written"][:19], "%Y-%m-%dT%H:%M:%S")
    require_state_of(tmp_path, 7)


def test_training_goes_on_while_it_is_written_and_nothing_has_the_name_before_it_is_whole(tmp_path, writer):
    may_write, told = threading.Event(), []
    writer(lambda path: may_write.wait(30))
    saver = alone(tmp_path, told)
    assert not saver.is_pending
    begin(saver, 5)
    assert saver.is_pending and saver.is_writing and steps_in(tmp_path) == []
    may_write.set()
    while saver.is_writing:
        time.sleep(0.01)
    assert saver.is_pending and steps_in(tmp_path) == [], "it is committed when all ranks call"
    assert saver.finish() and not saver.is_pending and steps_in(tmp_path) == [5]
    assert saver.finish() and told == []


def test_a_save_that_is_on_its_way_is_finished_before_the_next_one_takes_its_memory(tmp_path, writer):
    writer(lambda path: time.sleep(0.1))
    saver = alone(tmp_path, [])
    begin(saver, 5)
    saver.begin(
        10, lambda: pytest.fail("taken early") if steps_in(tmp_path) != [5] else evenly(values_of(10), 1)[0], {}
    )
    saver.finish()
    assert steps_in(tmp_path) == [5, 10]
    require_state_of(tmp_path, 5)


def test_older_checkpoints_go_once_the_new_one_is_complete_and_not_before(tmp_path, writer):
    save(tmp_path, 1, 2, 3)
    seen = []
    writer(lambda path: seen.append(steps_in(tmp_path)))
    assert save(tmp_path, 4, keep=Keep(2)) == []
    assert seen == [[1, 2, 3]] * 2 and names_in(tmp_path) == ["checkpoint-3", "checkpoint-4"]


def test_the_best_by_their_figures_stay(tmp_path):
    save(tmp_path, 1, 2, 3, 4, keep=Keep(1, best=1), figures={1: 20.0, 2: 22.0, 3: 21.0})
    assert steps_in(tmp_path) == [2, 4]


def test_what_is_being_read_stays_for_now(tmp_path):
    save(tmp_path, 1, 2, ranks=1)
    saver = alone(tmp_path, [], Keep(1))
    saver.in_use.add(1)
    saver.tidy()
    saver.close()
    assert steps_in(tmp_path) == [1, 2]
    saver.in_use.clear()
    saver.tidy()
    saver.close()
    assert steps_in(tmp_path) == [2]


def test_without_a_limit_all_stay(tmp_path):
    save(tmp_path, 5, 10, 15)
    assert steps_in(tmp_path) == [5, 10, 15]


def test_what_is_incomplete_is_neither_counted_nor_deleted(tmp_path):
    save(tmp_path, 1, 2)
    (tmp_path / "checkpoint-1" / "rank-00000.safetensors").write_bytes(b"cut off")
    save(tmp_path, 3, keep=Keep(2))
    assert names_in(tmp_path) == ["checkpoint-1", "checkpoint-2", "checkpoint-3"]


def fail_on(name: str, error: Exception):
    def act(path: Path) -> None:
        if path.name == name:
            path.write_bytes(b"a part of it")
            raise error

    return act


@pytest.mark.parametrize("rank", range(3))
def test_where_one_rank_cannot_write_there_is_no_checkpoint_and_training_goes_on(tmp_path, writer, rank):
    save(tmp_path, 1, ranks=3, keep=Keep(1))
    name = f"rank-{rank:05d}.safetensors"
    writer(fail_on(name, OSError(28, "No space left on device")))
    (told,) = save(tmp_path, 2, ranks=3, keep=Keep(1))
    assert "checkpoint 2 could not be written" in told and "training goes on without it" in told
    assert f"{name} on " in told and "No space left on device" in told
    assert names_in(tmp_path) == ["checkpoint-1"], "the older one stays and nothing of the failed one does"
    writer(lambda path: None)
    assert save(tmp_path, 2, ranks=3, keep=Keep(1)) == []
    assert names_in(tmp_path) == ["checkpoint-2"]
    require_state_of(tmp_path, 2)


def test_a_save_after_one_that_failed_works_with_the_same_saver(tmp_path, writer):
    told: list[str] = []
    saver = alone(tmp_path, told)
    writer(fail_on("rank-00000.safetensors", OSError(28, "No space left on device")))
    begin(saver, 5)
    assert not saver.finish() and not saver.was_committed and len(told) == 1
    writer(lambda path: None)
    begin(saver, 10)
    assert saver.finish() and saver.was_committed and steps_in(tmp_path) == [10]


def test_a_writer_that_breaks_off_leaves_no_checkpoint_with_the_checksum_of_the_one_before(tmp_path, monkeypatch):
    told: list[str] = []
    saver = alone(tmp_path, told)
    begin(saver, 5)
    assert saver.finish()
    monkeypatch.setattr(threading, "excepthook", lambda _: None)  # its traceback is for the log
    of_no_format = {"0.blocks": torch.zeros(2, dtype=torch.complex64)}
    saver.begin(10, lambda: replace(evenly(values_of(10), 1)[0], loose=of_no_format), {})
    assert not saver.finish() and "writing it broke off" in told[0]
    assert names_in(tmp_path) == ["checkpoint-5"]


def test_what_is_still_being_deleted_is_not_given_up_a_second_time(tmp_path, monkeypatch):
    save(tmp_path, 1, 2, 3, ranks=1)
    told: list[str] = []
    saver, remove = alone(tmp_path, told, Keep(1)), shutil.rmtree
    monkeypatch.setattr(shutil, "rmtree", lambda *path, **how: time.sleep(0.2) or remove(*path, **how))
    for step in (4, 5):
        begin(saver, step)
        saver.finish()
    saver.close()
    assert told == [] and names_in(tmp_path) == ["checkpoint-5"]


def test_a_commit_that_cannot_be_written_is_told_like_a_rank_that_cannot(tmp_path, writer):
    save(tmp_path, 1)
    writer(lambda path: (path.parent / "commit.json").mkdir(exist_ok=True))
    (told,) = save(tmp_path, 2)
    assert "checkpoint 2 could not be written (commit on " in told and "Is a directory" in told
    assert names_in(tmp_path) == ["checkpoint-1"]


def test_a_step_that_comes_by_again_replaces_its_checkpoint(tmp_path):
    save(tmp_path, 4, 6, ranks=3)
    save(tmp_path, 4, ranks=2)
    assert names_in(tmp_path) == ["checkpoint-4", "checkpoint-6"]
    assert names_in(tmp_path / "checkpoint-4") == ["commit.json", *(f"rank-0000{rank}.safetensors" for rank in (0, 1))]
    assert steps_in(tmp_path) == [6, 4], "it is the newest now"


def test_what_was_just_saved_stays_even_where_checkpoints_of_later_steps_lie(tmp_path):
    save(tmp_path, 10, 20, 30)
    save(tmp_path, 15, keep=Keep(2))
    assert steps_in(tmp_path) == [30, 15]


def test_what_has_a_checkpoint_s_name_and_is_none_is_set_aside_and_never_deleted(tmp_path):
    for number in range(2):
        save(tmp_path, 4)
        (tmp_path / "checkpoint-4" / "rank-00000.safetensors").write_bytes(b"%d" % number)
    (tmp_path / "checkpoint-4" / "commit.json").unlink()
    save(tmp_path, 4, 5, keep=Keep(1))
    assert names_in(tmp_path) == ["checkpoint-5", "damaged-checkpoint-4", "damaged-checkpoint-4-2"]
    kept = [(tmp_path / name / "rank-00000.safetensors").read_bytes() for name in names_in(tmp_path)[1:]]
    assert kept == [b"0", b"1"]
    sweep(tmp_path, print)
    assert len(names_in(tmp_path)) == 3


def test_an_old_checkpoint_that_cannot_be_deleted_is_told_and_stops_nothing(tmp_path):
    save(tmp_path, 1)
    (tmp_path / ".deleting-checkpoint-1").write_text("a file is where the doomed folder would go")
    (told,) = save(tmp_path, 2, keep=Keep(1))
    assert str(tmp_path / "checkpoint-1") in told and "delete it by hand" in told
    assert steps_in(tmp_path) == [1, 2]


def test_sweeping_takes_away_what_a_killed_run_was_writing_or_deleting(tmp_path):
    save(tmp_path, 4)
    for name in (".writing-checkpoint-6", ".deleting-checkpoint-2"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "rank-00009.safetensors").write_bytes(b"of a killed run")
    (tmp_path / ".place-0123-1").touch()
    (tmp_path / "run.json").write_text("{}")
    sweep(tmp_path, print)
    assert names_in(tmp_path) == ["checkpoint-4", "run.json"]


class Killed(BaseException):
    """Ends a save as a signal that nobody can catch."""


@pytest.mark.parametrize("renamings", [0, 1, 2])
def test_wherever_a_replacement_is_cut_off_the_next_start_has_one_whole_checkpoint_of_the_step(
    tmp_path, monkeypatch, renamings
):
    save(tmp_path, 4)
    old = (tmp_path / "checkpoint-4" / "commit.json").read_text()
    left, rename = [renamings], Path.rename

    def cut_off(path, target):
        if not left[0]:
            raise Killed
        left[0] -= 1
        return rename(path, target)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "rename", cut_off)
        patch.setattr(shutil, "rmtree", lambda *_, **__: None)  # a killed run deletes nothing more
        if renamings < 2:
            with pytest.raises(Killed):
                save(tmp_path, 4, ranks=1)
        else:
            save(tmp_path, 4, ranks=1)
    sweep(tmp_path, print)
    assert names_in(tmp_path) == ["checkpoint-4"] and steps_in(tmp_path) == [4]
    is_old = (tmp_path / "checkpoint-4" / "commit.json").read_text() == old
    assert is_old == (renamings == 0)
    require_state_of(tmp_path, 4)


def test_nodes_with_folders_of_their_own_commit_their_own_files_and_name_the_others(tmp_path):
    folders = [tmp_path / "node0", tmp_path / "node1"]
    for folder in folders:
        folder.mkdir()

    def act(rank, gathered):
        node = rank // 2
        saver = Saver(folders[node], Place(rank, (2 * node, 2 * node + 1)), gathered, Keep(1), {}, print)
        for step in (5, 10):
            saver.begin(step, lambda: evenly(values_of(step), 4)[rank], {})  # noqa: B023
            assert saver.finish()
        saver.close()

    as_ranks(4, act)
    names = [f"rank-{rank:05d}.safetensors" for rank in range(4)]
    for folder, own, others in ((folders[0], names[:2], names[2:]), (folders[1], names[2:], names[:2])):
        assert names_in(folder) == ["checkpoint-10"]
        commit = read(folder / "checkpoint-10").commit
        assert list(commit["files"]) == own and list(commit["elsewhere"]) == others
        assert names_in(folder / "checkpoint-10") == ["commit.json", *own]
    for name in names[2:]:  # brought together, they are the whole
        shutil.copy(folders[1] / "checkpoint-10" / name, folders[0] / "checkpoint-10")
    require_state_of(folders[0], 10)


def test_where_one_node_cannot_write_no_node_has_the_checkpoint(tmp_path, writer):
    folders = [tmp_path / "node0", tmp_path / "node1"]
    for folder in folders:
        folder.mkdir()
    writer(fail_on("rank-00001.safetensors", OSError(28, "No space left on device")))

    def act(rank, gathered):
        saver = Saver(folders[rank], Place(rank, (rank,)), gathered, Keep(), {}, lambda _: None)
        saver.begin(5, lambda: evenly(values_of(5), 2)[rank], {})
        return saver.finish()

    assert as_ranks(2, act) == [False, False]
    assert [names_in(folder) for folder in folders] == [[], []]


def test_the_commit_is_json_that_holds_the_facts_as_they_were_given(tmp_path):
    save(tmp_path, 4, stream={"next_step": 4}, settings={"train": {"seed": 1}})
    commit = json.loads((tmp_path / "checkpoint-4" / "commit.json").read_text())
    assert commit["format"] == 2 and commit["stream"] == {"next_step": 4} and commit["settings"]["train"]["seed"] == 1
