"""Scenes and splits that manifests give, and samples that cannot be used: all counted, refused or told one by one."""

import json
import random
from pathlib import Path

import pytest

from refiner_ds.data.manifest import read_dataset
from refiner_ds.errors import UserError
from tests.data.manifests import NAMES, as_difix, as_lists, as_table, paths_of, table_of, write_folder


@pytest.fixture
def folder(tmp_path) -> Path:
    """The samples NAMES as files."""
    return write_folder(tmp_path)


def test_a_pattern_names_scenes_where_the_file_does_not(folder):
    pattern = r"(drive_\d)/"
    by_drive = ["drive_0"] * 3 + ["drive_1"] * 3
    assert [s.scene for s in read_dataset(as_difix(folder), scene_pattern=pattern)] == by_drive
    given = as_lists(folder, scene=["mine", *[None] * 5])
    assert [s.scene for s in read_dataset(given, scene_pattern=pattern)] == ["mine", *by_drive[1:]]
    # both cameras of a drive are neighbours, so a pattern stands above the folders' names
    assert [s.scene for s in read_dataset(folder, scene_pattern=pattern)] == by_drive


@pytest.mark.parametrize(
    ("pattern", "words"),
    [
        ("(drive", r"'\(drive' is no regular expression \(.*put the part that names the scene"),
        (r"drive_\d", r"has 0 groups, so what names the scene is not certain; put the part"),
        (r"(drive)_(\d)", r"has 2 groups"),
        (r"(drive_1)/", r"names no scene for 3 of the 6 renders of .*\(render/drive_0/cam/1.png is the first\)"),
        (r"(drive_1)?.", r"names no scene for 6 of the 6 renders"),
        (r"render/(\d*)", r"names no scene for 6 of the 6 renders"),
    ],
)
def test_a_pattern_that_cannot_name_scenes_is_refused(folder, pattern, words):
    with pytest.raises(UserError, match=words):
        read_dataset(as_difix(folder), scene_pattern=pattern)


def test_samples_that_lack_a_view_are_counted(folder):
    (folder / "gt/drive_0/cam/10.jpg").unlink()
    (folder / "render/drive_1/cam/2.png").unlink()
    words = (
        r"2 of its 6 samples lack a picture \(render/drive_0/cam/10.png lacks gt/, "
        r"gt/drive_1/cam/2.jpg lacks render/\)"
    )
    with pytest.raises(UserError, match=words):
        read_dataset(folder)
    with pytest.raises(UserError, match=r"1 of its 6 samples lack a picture \(render/\S*/1.png lacks ref_image\)"):
        read_dataset(as_difix(folder, ref_image=None))


def test_renders_that_are_listed_twice_are_told(folder):
    lists = json.loads(as_lists(folder).read_text())
    lists["render"][4] = "render/../" + lists["render"][1]
    path = folder / "lists.json"
    path.write_text(json.dumps(lists))
    words = r"1 of its 6 samples repeat the render of an earlier one \(render/\.\./render/drive_0/cam/2.png\).*weight"
    with pytest.raises(UserError, match=words):
        read_dataset(path)


@pytest.mark.parametrize("write", [as_lists, as_difix, as_table])
def test_missing_files_are_counted_in_every_form(folder, write):
    path = write(folder)
    for name in NAMES[:4]:
        (folder / paths_of(name)["cond"]).unlink()
    with pytest.raises(UserError, match=r"4 of its files do not exist \(.*, \.\.\.\); mend the paths, which start at"):
        read_dataset(path)


def test_what_is_left_out_is_told_sample_by_sample(folder):
    """Over many kinds of damage, every sample is either read or told, and never both."""
    rng = random.Random(0)
    for _ in range(100):
        rows = [paths_of(name) for name in NAMES]
        damage = {number: rng.choice(["no cond", "again"]) for number in rng.sample(range(1, 6), 3)}
        for number, kind in damage.items():
            rows[number] = {**rows[number], **{"no cond": {"cond": ""}, "again": rows[0]}[kind]}
        path = table_of(folder, "render,gt,cond\n" + "".join(",".join(row.values()) + "\n" for row in rows))
        told: list[tuple[str, str]] = []
        read = read_dataset(path, skip=lambda name, reason, told=told: told.append((name, reason)))
        assert [s.name for s in read] == [rows[i]["render"] for i in range(6) if i not in damage]
        reasons = {"no cond": "lacks cond", "again": "repeats the render"}
        found = {(rows[number]["render"], reasons[kind]) for number, kind in damage.items()}
        assert {(name, reason[: len(why)]) for (name, reason) in told for _, why in found if why in reason} == found
        assert len(told) == 3


def test_leaving_everything_out_is_refused(folder):
    path = table_of(folder, "render,gt,cond\nx,y,\n")
    with pytest.raises(UserError, match="none of its 1 samples can be used, so nothing is left"):
        read_dataset(path, skip=lambda name, reason: None)
