"""Output folders: refused before the work where they cannot be, whole or not there at all after it."""

import os
import platform
import subprocess
import sys

import pytest

from refiner_ds.errors import UserError
from refiner_ds.folders import file_made_whole, made_whole, require_folder, require_free


def dead_process() -> int:
    """The number of a process that has ended."""
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


@pytest.mark.parametrize("require", [require_folder, lambda out: require_free(out, "why")])
def test_a_folder_below_a_file_is_refused_with_both_names(tmp_path, require):
    (tmp_path / "file").write_text("mine")
    out = tmp_path / "file" / "deep" / "out"
    words = f"output folder {out} cannot be made, as {tmp_path / 'file'} is no folder that can be written; name another"
    with pytest.raises(UserError, match=words):
        require(out)


def test_what_is_new_or_empty_is_free(tmp_path):
    (tmp_path / "empty").mkdir()
    for out in (tmp_path / "deep" / "new", tmp_path / "empty"):
        require_free(out, "why")
    require_folder(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["empty"]


def test_what_holds_something_is_not_free_and_says_why(tmp_path):
    (tmp_path / "file").write_text("mine")
    for out in (tmp_path, tmp_path / "file"):
        with pytest.raises(UserError, match=f"output folder {out} is not empty, and it is mine; name another folder"):
            require_free(out, "it is mine")


def test_the_working_folder_is_not_taken_away(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for out in (type(tmp_path)("."), tmp_path):
        with pytest.raises(UserError, match=r"is the working folder, which would be replaced under your feet"):
            require_free(out, "why")


@pytest.mark.parametrize("exists", [False, True])
def test_a_folder_appears_whole(tmp_path, monkeypatch, exists):
    monkeypatch.chdir(tmp_path)
    out = type(tmp_path)("deep") / "[out]"
    if exists:
        out.mkdir(parents=True)
    with made_whole(out) as scratch:
        (scratch / "content").write_text("new")
        assert not (out / "content").exists()
    assert [path.name for path in out.parent.iterdir()] == ["[out]"]
    assert (out / "content").read_text() == "new"


def test_a_folder_whose_making_fails_does_not_appear(tmp_path):
    with pytest.raises(KeyboardInterrupt), made_whole(tmp_path / "out") as scratch:
        (scratch / "content").write_text("half")
        raise KeyboardInterrupt
    assert list(tmp_path.iterdir()) == []


def test_what_a_killed_process_left_goes_and_what_a_living_one_makes_stays(tmp_path):
    here, dead = f".[out].making-{platform.node()}-", dead_process()
    stays = [f"{here}{os.getppid()}", f"{here}notes", f".[out].making-elsewhere-{dead}"]
    for name in (*stays, f"{here}{dead}"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "content").write_text("half")
    with made_whole(tmp_path / "[out]"):
        pass
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([*stays, "[out]"])


def test_a_file_is_the_old_one_or_the_new_one_whatever_ends_its_making(tmp_path):
    path = tmp_path / "file"
    (tmp_path / f".file.making-{platform.node()}-{dead_process()}").write_text("half")
    with file_made_whole(path) as scratch:
        scratch.write_text("old")
    with pytest.raises(KeyboardInterrupt), file_made_whole(path) as scratch:
        scratch.write_text("ha")
        raise KeyboardInterrupt
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("file", "old")]
    with file_made_whole(path) as scratch:
        scratch.write_text("new")
        assert path.read_text() == "old"
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("file", "new")]
