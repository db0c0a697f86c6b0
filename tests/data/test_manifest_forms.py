"""Every form of a manifest gives the samples that it lists, and what is no such form is said in words."""

import json
from pathlib import Path

import pytest

from refiner_ds.data.manifest import VIEWS, read_dataset
from refiner_ds.errors import UserError
from tests.data.manifests import NAMES, as_difix, as_lists, as_table, paths_of, table_of, write_folder


@pytest.fixture
def folder(tmp_path) -> Path:
    """The samples NAMES as files."""
    return write_folder(tmp_path)


FORMS = {"lists": as_lists, "difix": as_difix, "table": as_table, "tree": lambda folder: folder}


@pytest.mark.parametrize("write", FORMS.values(), ids=FORMS)
def test_all_forms_give_the_same_samples(folder, write, monkeypatch, tmp_path_factory):
    path = write(folder)
    monkeypatch.chdir(tmp_path_factory.mktemp("elsewhere"))
    samples = read_dataset(path)
    assert [sample.sources for sample in samples] == [paths_of(name) for name in NAMES]
    assert all(sample.files[view] == folder / sample.sources[view] for sample in samples for view in VIEWS)
    assert all(file.is_file() for sample in samples for file in sample.files.values())


def test_the_form_is_seen_by_content_where_the_name_says_nothing(folder):
    for write in (as_lists, as_difix, as_table):
        assert [s.name for s in read_dataset(write(folder).rename(folder / "list.txt"))] == [
            paths_of(name)["render"] for name in NAMES
        ]


def test_only_the_views_asked_for_are_needed(folder):
    views = ("render", "cond")
    entry = {"image": paths_of(NAMES[0])["render"], "ref_image": paths_of(NAMES[0])["cond"]}
    difix = folder / "difix.json"
    difix.write_text(json.dumps({"train": {"only": entry}}))
    table = table_of(folder, "render,cond\nrender/drive_0/cam/1.png,cond/drive_0/cam/1.png\n")
    assert {tuple(s.files) for path in (folder, difix, table, as_lists(folder)) for s in read_dataset(path, views)} == {
        views
    }


def test_splits_and_scenes_are_the_files_own(folder):
    scenes, splits = ["a", "a", "b", "b", "", "c"], ["train", "val"] * 3
    listed = read_dataset(as_lists(folder, scene=[scene or None for scene in scenes], note="not read"))
    tabled = read_dataset(as_table(folder, scene=scenes, split=splits))
    assert [s.scene for s in listed] == [s.scene for s in tabled] == ["a", "a", "b", "b", None, "c"]
    assert [s.split for s in tabled] == splits and {s.split for s in listed} == {None}
    assert [s.split for s in read_dataset(as_difix(folder))] == ["train"] * 4 + ["val"] * 2
    assert [s.scene for s in read_dataset(folder)] == ["drive_0/cam"] * 3 + ["drive_1/cam"] * 3
    assert {s.split for s in read_dataset(folder)} == {None}


def test_a_difix_file_that_holds_out_nothing_leaves_the_split_open(folder):
    assert {s.split for s in read_dataset(as_difix(folder, held_out=0))} == {None}


def test_pictures_right_below_the_views_have_no_scene(tmp_path):
    for view in VIEWS:
        (tmp_path / view).mkdir()
        (tmp_path / view / "frame.1.png").touch()
        (tmp_path / view / ".hidden").touch()
    (sample,) = read_dataset(tmp_path)
    assert (sample.scene, sample.name) == (None, "render/frame.1.png")


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"scene": ["a"]}, r"different lengths \(render 6, gt 6, cond 6, scene 1\)"),
        ({"scene": "a"}, r"'scene' is no list of names"),
        ({"scene": [1] * 6}, r"'scene' is no list of names"),
    ],
)
def test_a_list_of_scenes_that_does_not_fit_is_refused(folder, more, words):
    with pytest.raises(UserError, match=words):
        read_dataset(as_lists(folder, **more))


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ({"train": {}, "test": {}}, "its train and test are empty"),
        ({"train": {}, "test": [1]}, "'test' is no object"),
        ({"train": {"a": {}}, "val": {"b": {}}}, "val beside 'train' and 'test' is not read.*move them into one"),
        (
            {"train": {"a": ["x"], "b": {"image": 3}, "c": {}}},
            r"3 of its 3 entries are no objects .*\(train a, train b",
        ),
        ('{"train": {"a": {"image": "x"}, "a": {"image": "y"}}}', "the key 'a' stands twice in one object"),
        ("[" * 100_000, "is not JSON"),
        ({"pictures": []}, r"'render' is no list of paths.*aligned lists render, gt, cond"),
    ],
)
def test_json_of_no_known_form_is_refused_in_words(tmp_path, content, words):
    path = tmp_path / "m.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    with pytest.raises(UserError, match=words) as caught:
        read_dataset(path)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "its first line has no column render, gt, cond.*write the header render,gt,cond"),
        ("render;gt;cond\n", "has no column render, gt, cond"),
        ("render,gt\na,b\n", "has no column cond"),
        ("render,gt,cond,gt\na,b,c,d\n", "has the column gt twice"),
        ("render,gt,cond\n\n", "it has no rows"),
        ("render,gt,cond\na,b,c\na,b\n\na,b,c,d\n", r"2 of its 3 rows do not have the 3 cells .*\(line 3, 5\)"),
        ("render,gt,cond\n , ,\n", r"1 of its 1 rows name no picture \(line 2\)"),
        (
            "render,gt,cond,split\na,b,c,test\na,b,c,\na,b,c,val\n",
            r"the split of 2 of its 3 rows is neither.*line 2, 3",
        ),
        ('render,gt,cond\n"a"b,c,d\n', "is no CSV at line 2"),
        ('render,gt,cond\n"a,b,c\n', "is no CSV at line 2"),
    ],
)
def test_a_table_that_is_none_is_refused_in_words(tmp_path, text, words):
    path = table_of(tmp_path, text)
    with pytest.raises(UserError, match=words) as caught:
        read_dataset(path)
    assert str(path) in str(caught.value)


def test_paths_with_commas_and_space_around_cells(tmp_path):
    (tmp_path / "a, b.png").touch()
    path = table_of(tmp_path, ' render , gt,cond\n"a, b.png","a, b.png", "a, b.png"\n'.replace(', "', ',"'))
    assert read_dataset(path)[0].files["gt"] == tmp_path / "a, b.png"


def test_a_folder_without_the_views_is_refused(tmp_path):
    (tmp_path / "gt").mkdir()
    with pytest.raises(UserError, match=r"a folder without render/ and cond/, .*that has render/, gt/, cond/"):
        read_dataset(tmp_path)
    (tmp_path / "render").mkdir()
    (tmp_path / "cond").mkdir()
    with pytest.raises(UserError, match="its folders are empty"):
        read_dataset(tmp_path)


def test_two_files_of_one_name_are_refused(folder):
    (folder / "gt/drive_0/cam/1.png").touch()
    with pytest.raises(UserError, match=r"gt/drive_0/cam/1.jpg and gt/drive_0/cam/1.png differ in their extension"):
        read_dataset(folder)


def test_drives_on_other_disks_are_followed_and_none_is_read_twice(folder, tmp_path_factory):
    elsewhere = tmp_path_factory.mktemp("disk")
    for view in VIEWS:
        (folder / view / "drive_1").rename(elsewhere / view)
        (folder / view / "drive_1").symlink_to(elsewhere / view)
    assert [s.name for s in read_dataset(folder)] == [paths_of(name)["render"] for name in NAMES]
    (elsewhere / "gt" / "loop").symlink_to(folder / "gt")
    with pytest.raises(UserError, match=r"loop is \S*/gt once more, through a link"):
        read_dataset(folder)


@pytest.mark.parametrize(("name", "words"), [("none.json", "No such file"), ("none.csv", "No such file")])
def test_what_cannot_be_read_is_refused(tmp_path, name, words):
    with pytest.raises(UserError, match=rf"cannot be read \({words}.*name a JSON or CSV file .*folder with render/"):
        read_dataset(tmp_path / name)


def test_what_is_no_text_is_refused(tmp_path):
    (tmp_path / "m.json").write_bytes(b"\x89PNG\r\n")
    with pytest.raises(UserError, match=r"is not JSON \("):
        read_dataset(tmp_path / "m.json")
