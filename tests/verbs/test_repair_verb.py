"""`refiner-ds repair` as a user starts it: what it takes, what it calls its pictures, and what it refuses."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from refiner_ds.cli import main
from tests.verbs.listing import contents

SIZE = (64, 48)


def pair(folders: dict[str, Path]) -> dict[str, Path]:
    """One render and its reference."""
    return {"render": folders["render"] / "a/000.png", "cond": folders["cond"] / "a/000.jpg"}


def test_a_manifest_keeps_names_below_the_folder_that_all_renders_share(repair, folders, tmp_path):
    manifest, out = tmp_path / "manifest.json", tmp_path / "out"
    lists = {"render": ["render/a/000.png", "drawn/../render/b/000.png"], "cond": ["cond/a/000.jpg", "cond/b/000.png"]}
    manifest.write_text(json.dumps(lists))
    assert repair(out, "--manifest", manifest) == (0, f"2 repaired in {out}")
    assert sorted(contents(out)) == ["a/000.png", "b/000.png", "repair.json"]
    assert repair(out, "--manifest", manifest)[1].startswith("0 repaired, 2 were there")
    assert repair(out, **folders) == (0, f"1 repaired, 2 were there, in {out}")


def test_one_picture_is_always_made_anew_and_takes_the_place_of_what_is_there(repair, folders, tmp_path):
    for out in (tmp_path / "deep" / "one.png", tmp_path / "one.jpg"):
        assert repair(out, **pair(folders)) == (0, f"1 repaired in {out}")
        first = out.read_bytes()
        out.write_text("something else")
        assert repair(out, **pair(folders)) == (0, f"1 repaired in {out}")
        assert out.read_bytes() == first and Image.open(out).size == SIZE
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["one.png"]


def test_several_references_the_sampler_and_tiles_change_the_picture(repair, folders, tmp_path):
    settings = {
        "one": [],
        "two": [folders["cond"] / "b/000.png"],
        "ddim": ["--scheduler", "DDIMScheduler"],
        "own": ["--scheduler", "PNDMScheduler"],
        "tiles": ["--tile_size", 32],
    }
    found = {}
    for name, more in settings.items():  # `more` follows --cond REFERENCE
        code, _ = repair(tmp_path / f"{name}.png", *more, "--num_inference_steps", 3, **pair(folders))
        assert code == 0
        found[name] = np.asarray(Image.open(tmp_path / f"{name}.png"))
    assert all(not np.array_equal(found[name], found["one"]) for name in ("two", "ddim", "tiles"))
    assert np.array_equal(found["own"], found["one"])


@pytest.mark.parametrize(
    ("render", "cond", "words"),
    [
        ("render", ["cond/b/000.png"], "--render render is a folder and --cond cond/b/000.png is none, so they do not"),
        ("render/b/000.png", ["cond"], "--cond cond is a folder and --render render/b/000.png is none, so they do not"),
        ("none", ["cond"], "--cond cond is a folder and --render none is none, so they do not belong together; name"),
        ("render", ["cond", "drawn"], "--cond names 2 folders, but each of its pictures takes one reference, of its"),
        ("empty", ["cond"], "--render empty holds no pictures (.png, .jpg or .webp), so there is nothing to repair"),
        (
            "drawn",
            ["cond"],
            "--cond cond has no reference for 9 of the 9 renders (cond/000.png, cond/001.png, cond/002",
        ),
        (
            "render/b/000.png",
            ["drawn/cond/000.png", "large.png"],
            "(render 64x48, cond 1 64x48, cond 2 80x48), so they",
        ),
        ("render", ["twice"], "--cond twice has a/000.jpg and a/000.webp, so the reference of render a/000.png is not"),
        (
            "twice",
            ["cond"],
            "renders twice/a/000.jpg and twice/a/000.webp would be repaired into out/a/000.png, so one",
        ),
    ],
)
def test_pictures_that_do_not_belong_together(refused, folders, tmp_path, monkeypatch, render, cond, words):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    Image.new("RGB", (80, 48)).save("large.png")
    shutil.copytree("cond", "twice")
    shutil.copy("twice/a/000.jpg", "twice/a/000.webp")
    assert words in refused(Path("out" if "large.png" not in cond else "out.png"), "--render", render, "--cond", *cond)


def test_a_render_that_is_listed_twice_with_different_references(refused, folders, tmp_path):
    manifest, out = tmp_path / "manifest.json", tmp_path / "out"
    manifest.write_text(json.dumps({"render": ["render/b/000.png"] * 2, "cond": ["cond/b/000.png", "cond/a/000.jpg"]}))
    words = (
        f"render {folders['render'] / 'b/000.png'} is listed twice, and both would be repaired into {out / '000.png'}"
    )
    assert words in refused(out, "--manifest", manifest)


def test_an_output_that_lies_among_what_is_given(refused, folders, tmp_path):
    words = f"lies in --render {folders['render']}, so repairs would be taken for renders the next time; name a folder"
    for out in (folders["render"], folders["render"] / "repaired"):
        assert f"--output {out} {words}" in refused(out, **folders)
    render = folders["render"] / "b/000.png"
    words = f"{render} is one of the pictures that repairs are made of, and would be overwritten; name another --output"
    assert words in refused(render, render=render, cond=folders["cond"] / "b/000.png")
    assert words in refused(render.parent, render=render, cond=folders["cond"] / "b/000.png")


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (
            ["--scheduler", "Euler"],
            "--scheduler Euler cannot take the place of PNDMScheduler; take one of DDIMScheduler,",
        ),
        (["--tile_size", 3], "tiles of 3 pixels are no whole number of latents of "),
        (["--num_inference_steps", 0], "0 sampling steps repair nothing; take 1 to 1000"),
    ],
)
def test_settings_that_repair_nothing_leave_nothing(refused, folders, tmp_path, more, words):
    assert words in refused(tmp_path / "out", *more, **folders)


@pytest.mark.parametrize(("flag", "good", "bad"), [("--scheduler", "DDIMScheduler", "Euler"), ("--tile_size", 32, 3)])
def test_evaluate_takes_the_sampler_and_the_tiles_too(model, dataset, tmp_path, capsys, flag, good, bad):
    manifest = dataset(tmp_path / "drawn", [SIZE])
    common = ["evaluate", "--model", model, "--manifest", manifest, "--num_inference_steps", 3]
    found = []
    for number, settings in enumerate([[], [flag, good]]):
        assert main([str(part) for part in [*common, *settings, "--output", tmp_path / str(number)]]) == 0
        found.append(json.loads((tmp_path / str(number) / "metrics.json").read_text()))
    assert found[0]["render"] == found[1]["render"] and found[0]["repaired"] != found[1]["repaired"]
    capsys.readouterr()
    assert main([str(part) for part in [*common, flag, bad, "--output", tmp_path / "none"]]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1 and not (tmp_path / "none").exists()
