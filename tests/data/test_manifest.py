"""The manifest: aligned lists, and the words for everything that can be wrong with them."""

import json
from pathlib import Path

import pytest

from refiner_ds.data.manifest import read_manifest
from refiner_ds.errors import UserError

LISTS = {"render": ["r0.png", "r1.png"], "gt": ["g0.png", "g1.png"], "cond": ["c0.png", "c1.png"]}


@pytest.fixture
def folder(tmp_path):
    """A folder that holds the files of LISTS; nothing here opens them."""
    for entries in LISTS.values():
        for entry in entries:
            (tmp_path / entry).write_bytes(b"not opened")
    return tmp_path


def write(folder: Path, content: object) -> Path:
    path = folder / "manifest.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


def test_entries_of_equal_index_form_a_sample_in_the_order_of_the_lists(folder):
    first, second = read_manifest(write(folder, LISTS))
    assert first.files == {"render": folder / "r0.png", "gt": folder / "g0.png", "cond": folder / "c0.png"}
    assert second.sources == {"render": "r1.png", "gt": "g1.png", "cond": "c1.png"}


def test_relative_paths_start_at_the_manifest_wherever_one_stands(folder, monkeypatch, tmp_path_factory):
    path = write(folder, LISTS)
    monkeypatch.chdir(tmp_path_factory.mktemp("elsewhere"))
    assert all(file.is_file() for sample in read_manifest(path) for file in sample.files.values())


def test_absolute_paths_stand_for_themselves(folder, tmp_path_factory):
    lists = {view: [str(folder / entry) for entry in entries] for view, entries in LISTS.items()}
    path = write(tmp_path_factory.mktemp("elsewhere"), lists)
    assert read_manifest(path)[1].files["gt"] == folder / "g1.png"


def test_only_the_views_asked_for_are_needed_and_other_keys_do_not_matter(folder):
    lists = {"render": LISTS["render"], "cond": LISTS["cond"], "note": "of a sequence without photographs"}
    assert set(read_manifest(write(folder, lists), ("render", "cond"))[0].files) == {"render", "cond"}


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("{", r"is not JSON .*write an object with lists render, gt, cond"),
        ([1, 2], r"'render' is no list of paths.*aligned lists render, gt, cond"),
        ({"render": ["r0.png"], "gt": ["g0.png"]}, r"'cond' is no list of paths"),
        ({**LISTS, "gt": "g0.png"}, r"'gt' is no list of paths"),
        ({**LISTS, "gt": ["g0.png", None]}, r"'gt' is no list of paths"),
        (
            {**LISTS, "gt": ["g0.png"]},
            r"different lengths \(render 2, gt 1, cond 2\).*do not belong together; make them equally long",
        ),
        ({view: [] for view in LISTS}, r"its lists are empty, so there is nothing to read; list at least one sample"),
        ({**LISTS, "gt": ["g0.png", "."]}, r"1 of its files do not exist"),
    ],
)
def test_what_is_no_manifest_is_refused_in_words(folder, content, words):
    path = write(folder, content)
    with pytest.raises(UserError, match=words) as caught:
        read_manifest(path)
    assert str(path) in str(caught.value)


def test_all_missing_files_are_counted_and_the_first_few_named(folder):
    lists = {view: [f"{view}{number}.png" for number in range(5)] for view in LISTS}
    with pytest.raises(UserError, match=r"15 of its files do not exist") as caught:
        read_manifest(write(folder, lists))
    sentence = str(caught.value)
    assert [name in sentence for name in ("render0.png", "gt0.png", "cond0.png")] == [True] * 3
    assert ", ...)" in sentence and "cond4.png" not in sentence
    assert f"start at {folder}/ where they are relative" in sentence


def test_a_missing_file_that_is_listed_twice_is_one(folder):
    path = write(folder, {**LISTS, "cond": ["none.png", "none.png"]})
    with pytest.raises(UserError, match=r"1 of its files do not exist \(\S*/none.png\);"):
        read_manifest(path)


def test_few_missing_files_are_all_named(folder):
    (folder / "g1.png").unlink()
    with pytest.raises(UserError, match=r"1 of its files do not exist \(\S*/g1.png\);"):
        read_manifest(write(folder, LISTS))


@pytest.mark.parametrize(("name", "words"), [("nothing.json", "No such file"), (".", "Is a directory")])
def test_a_manifest_that_cannot_be_read_is_refused_in_words(folder, name, words):
    with pytest.raises(UserError, match=rf"cannot be read \({words}.*name a JSON file with the lists render, gt, cond"):
        read_manifest(folder / name)
