"""Bad input on the command line: exit code 2, one sentence with the remedy, no traceback, nothing half-written."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from refiner_ds.cli import main


@pytest.fixture
def good(dataset, tmp_path) -> Path:
    """A manifest of six triplets in a folder of its own, for a test to spoil."""
    return dataset(tmp_path / "good", [(64, 48)] * 6)


def everything_in(folder: Path) -> list[str]:
    """All files and folders, but for the scratch folder in which `pack` keeps what it has checked."""
    found = (path.relative_to(folder) for path in folder.rglob("*"))
    return sorted(str(path) for path in found if path.parts[0] != ".out.packing")


@pytest.fixture
def refused(tmp_path, capsys) -> Callable[..., str]:
    """`refused(verb, *arguments)` runs a verb that must refuse them, and returns its sentence."""

    def run(verb: str, *arguments: object) -> str:
        before = everything_in(tmp_path)
        code = main([verb, *map(str, arguments)])
        output = capsys.readouterr()
        assert (code, output.out.strip()) == (2, "")
        assert "Traceback" not in output.err
        (line,) = output.err.splitlines()
        assert line.startswith(f"refiner-ds {verb}: ") and line.endswith(".")
        assert everything_in(tmp_path) == before
        return line

    return run


def respell(manifest: Path, **lists: object) -> Path:
    """Changes lists of a manifest."""
    manifest.write_text(json.dumps({**json.loads(manifest.read_text()), **lists}))
    return manifest


@pytest.mark.parametrize(
    ("lists", "words"),
    [
        ({"gt": ["gt/000.png"]}, "the lists have different lengths (render 6, gt 1, cond 6)"),
        ({"render": [], "gt": [], "cond": []}, "its lists are empty, so there is nothing to read; list at least one"),
        ({"cond": None}, "'cond' is no list of paths, so samples cannot be formed; write an object with"),
        ({"cond": [f"{i}.png" for i in range(6)]}, "6 of its files do not exist ("),
    ],
)
@pytest.mark.parametrize("verb", ["pack", "evaluate"])
def test_a_manifest_that_is_wrong(good, refused, tmp_path, verb, lists, words):
    manifest = respell(good, **lists)
    out = tmp_path / "out"
    arguments = [manifest, out] if verb == "pack" else ["--manifest", manifest, "--model", "base", "--output", out]
    assert words in refused(verb, *arguments)


def test_a_manifest_that_is_none(good, refused, tmp_path):
    words = "cannot be read (No such file or directory); name a JSON"
    assert words in refused("pack", tmp_path / "none.json", tmp_path / "out")
    assert "is not JSON (" in refused("pack", good.parent / "gt" / "000.png", tmp_path / "out")


def spoil(kind: str, path: Path) -> None:
    """Replaces a picture by something that cannot be used."""
    if kind == "text":
        path.write_text("to be sent later")
    elif kind == "cut off":
        path.write_bytes(path.read_bytes()[:500])
    elif kind == "16 bits":
        Image.fromarray(np.full((48, 64), 900, np.uint16)).save(path)
    else:
        form = {"gif": ("RGB", (64, 48)), "transparent": ("RGBA", (64, 48)), "size": ("RGB", (48, 64))}[kind]
        Image.new(*form).save(path, "GIF" if kind == "gif" else "PNG")


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("text", "gt/002.png is no readable picture (of no known format)"),
        ("cut off", "gt/002.png is no readable picture"),
        ("gif", "gt/002.png is a GIF; save it as PNG, JPEG or WebP"),
        ("16 bits", "gt/002.png has mode I;16 (16 bits or more a channel, as depth maps have); save it with 8 bits"),
        ("transparent", "gt/002.png has transparent pixels, whose colour is undefined; flatten it onto a background"),
        ("size", "render/002.png and its partners differ in size (render 64x48, gt 48x64, cond 64x48)"),
    ],
)
def test_a_picture_that_cannot_be_used(good, refused, tmp_path, kind, words):
    spoil(kind, good.parent / "gt" / "002.png")
    sentence = refused("pack", good, tmp_path / "out", "--val", 1, "--workers", 1)
    assert "1 of 6 samples cannot be used" in sentence and words in sentence
    assert sentence.endswith("Mend them, take them out of the manifest, or leave them out with --on_error skip.")


def test_all_pictures_that_cannot_be_used_are_counted_and_the_first_few_named(good, refused, tmp_path):
    for number in range(6):
        (good.parent / "cond" / f"{number:03d}.png").write_text("no picture")
    sentence = refused("pack", good, tmp_path / "out", "--val", 1, "--workers", 1)
    assert "6 of 6 samples cannot be used" in sentence
    assert sentence.count("is no readable picture") == 5 and "; ... Mend them," in sentence


@pytest.mark.parametrize(
    ("verb", "options", "words"),
    [
        ("pack", ["--val", 6], "--val 6 of 6 samples leaves no training sample; hold out fewer than 6"),
        ("pack", [], "--val 10 of 6 samples leaves no training sample"),
        ("pack", ["--val", -1], "--val -1 is no number of samples to hold out; give 0 to hold out none, or more"),
        ("pack", ["--val", 1, "--shard_size", 0], "--shard_size 0 and --workers 2 must be at least 1"),
        ("pack", ["--val", 1, "--workers", 0], "and --workers 0 must be at least 1"),
        ("example", ["--shapes", "640"], "--shapes '640' is no list of WIDTHxHEIGHT; write e.g. 1408x376,640x480"),
        ("example", ["--shapes", "64x48x3"], "--shapes '64x48x3' is no list"),
        ("example", ["--shapes", "32x32"], "shape 32x32 is too small to show a street: give at least 64x48"),
        ("example", ["--frames", 0], "frames is 0, so that nothing would be drawn"),
        ("example", ["--streets", 0], "streets is 0"),
        ("example", ["--seed", -1], "seed is -1, which names no street"),
        ("example", ["--baseline", 0], "baseline is 0 metres"),
        ("example", ["--workers", 0], "workers is 0"),
    ],
)
def test_numbers_and_shapes_that_yield_nothing(good, refused, tmp_path, verb, options, words):
    assert words in refused(verb, *([good] if verb == "pack" else []), tmp_path / "out", *options)


def test_an_output_folder_that_is_taken(good, refused, tmp_path):
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "notes.txt").write_text("mine")
    for out in (tmp_path / "taken", tmp_path / "taken" / "notes.txt"):
        words = f"output folder {out} is not empty, and packing would mix two data sets; name another folder"
        assert words in refused("pack", good, out, "--val", 1)
        assert f"output folder {out} is not empty" in refused("export", tmp_path, out)


def test_shards_that_are_none(refused, tmp_path):
    (tmp_path / "index").mkdir()
    (tmp_path / "index" / "index.json").write_text("{")
    for folder in (tmp_path, tmp_path / "nothing"):
        assert "has no readable index.json" in refused("verify", folder)
    assert "is not JSON" in refused("verify", tmp_path / "index")
    (tmp_path / "index" / "index.json").write_text('{"version": 7}')
    assert "has version 7 and this program reads 2; pack again" in refused("verify", tmp_path / "index")


def test_an_example_over_other_pictures(good, refused):
    assert "belongs to other pictures, which would be mixed" in refused("example", good.parent, "--frames", 1)


def test_an_example_onto_a_file(refused, tmp_path):
    (tmp_path / "file").write_text("mine")
    assert str(tmp_path / "file") in refused("example", tmp_path / "file", "--frames", 1, "--shapes", "64x48")


@pytest.mark.parametrize(
    ("verb", "given", "words"),
    [
        ("repair", [], "repair takes either --render and --cond, or --manifest; give one of the two"),
        ("repair", ["--render", "r.png"], "repair takes either"),
        ("repair", ["--render", "r.png", "--manifest", "m.json"], "repair takes either"),
        ("evaluate", [], "evaluate takes either --manifest or --shards; give one of the two"),
        ("evaluate", ["--manifest", "m.json", "--shards", "s"], "evaluate takes either"),
    ],
)
def test_neither_or_both_of_what_excludes_each_other(refused, tmp_path, verb, given, words):
    assert words in refused(verb, "--model", tmp_path, "--output", tmp_path / "out", *given)


@pytest.mark.parametrize("spoiled", ["missing", "text", "size"])
def test_pictures_of_a_manifest_are_looked_at_before_the_model_is(good, refused, tmp_path, spoiled):
    for verb in ("repair", "evaluate"):
        cond = good.parent / "cond" / "004.png"
        if spoiled == "missing":
            cond.unlink(missing_ok=True)
        else:
            spoil(spoiled, cond)
        words = {
            "missing": "1 of its files do not exist",
            "text": f"picture {cond} is no readable picture",
            "size": f"{good.parent / 'render' / '004.png'} and its partners differ in size (render 64x48, ",
        }
        sentence = refused(verb, "--model", "none", "--output", tmp_path / "out", "--manifest", good)
        assert words[spoiled] in sentence


def test_one_picture_is_looked_at_before_the_model_is(good, refused, tmp_path):
    render, cond, out = good.parent / "render" / "000.png", good.parent / "cond" / "000.png", tmp_path / "out.png"
    none = tmp_path / "none.png"
    for given in (["--render", none, "--cond", cond], ["--render", render, "--cond", none]):
        sentence = refused("repair", "--model", "none", "--output", out, *given)
        assert sentence.startswith(f"refiner-ds repair: picture {none} cannot be read (No such file or directory)")
    spoil("size", cond)
    words = f"{render} and its partners differ in size (render 64x48, cond 48x64), so they do not align; give pictures"
    assert words in refused("repair", "--model", "none", "--output", out, "--render", render, "--cond", cond)


def test_an_output_that_no_repair_can_be_written_to(good, refused, tmp_path):
    (tmp_path / "file").write_text("mine")
    pair = ["--render", good.parent / "render" / "000.png", "--cond", good.parent / "cond" / "000.png"]
    for out in (tmp_path / "out", tmp_path / "file", tmp_path / "out.txt"):
        words = f"--output {out} does not end as a picture does, so its format is unknown; end it in .png, .jpg or "
        assert words in refused("repair", "--model", "none", "--output", out, *pair)
    words = f"as {tmp_path / 'file'} is no folder that can be written; name another folder"
    assert words in refused("repair", "--model", "none", "--output", tmp_path / "file" / "out.png", *pair)
    for verb in ("repair", "evaluate"):
        assert words in refused(verb, "--model", "none", "--output", tmp_path / "file", "--manifest", good)


def test_an_evaluation_with_the_curve_of_a_run_that_is_none(good, refused, tmp_path):
    given = ["--model", "none", "--output", tmp_path / "out", "--manifest", good, "--run", tmp_path / "rum"]
    words = f"--run {tmp_path / 'rum'} holds no metrics of a training run, so there is no loss curve to show; name its"
    assert words in refused("evaluate", *given)


def test_an_evaluation_of_shards_without_held_out_samples(good, pack_dataset, refused, tmp_path):
    pack_dataset(good, tmp_path / "shards", val=0)
    sentence = refused("evaluate", "--model", "base", "--output", tmp_path / "out", "--shards", tmp_path / "shards")
    assert "have no validation split, so " in sentence and "; pack with --val N." in sentence


@pytest.mark.parametrize("verb", ["repair", "evaluate"])
def test_a_model_that_is_none(good, refused, tmp_path, verb):
    common = ["--manifest", good, "--output", tmp_path / "out"]
    assert f"{tmp_path / 'none'} is no folder" in refused(verb, "--model", tmp_path / "none", *common)
    assert f"{tmp_path} has no readable model_index.json" in refused(verb, "--model", tmp_path, *common)
    (tmp_path / "model_index.json").write_text('{"_class_name": "StableDiffusionPipeline", "vae": ["a", "b"]}')
    assert "is a StableDiffusionPipeline without vae, " in refused(verb, "--model", tmp_path, *common)


def test_an_export_of_a_folder_without_checkpoints(refused, tmp_path):
    (tmp_path / "run" / "checkpoint-5").mkdir(parents=True)
    told = {
        "nothing": " is no complete checkpoint and holds none, so there is nothing to export; name a checkpoint",
        "run/checkpoint-5": " is no complete checkpoint (it has no commit.json) and holds none, so there is nothing",
        "run": " holds no whole checkpoint (checkpoint-5: it has no commit.json), so there is nothing to export; bring",
    }
    for folder, words in told.items():
        assert f"{tmp_path / folder}{words}" in refused("export", tmp_path / folder, tmp_path / "out")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["pack", "none.json", "out"], "manifest none.json cannot be read (No such file or directory); name a JSON"),
        (["verify", "."], "shards . has no readable index.json (No such file or directory), so nothing says"),
        (["example", "out", "--frames", "0"], "frames is 0, so that nothing would be drawn: ask for 1"),
        (["export", "none", "out"], "none is no complete checkpoint and holds none, so there is nothing to export"),
    ],
)
def test_the_same_as_a_process(refiner_ds_command, tmp_path, arguments, words):
    done = refiner_ds_command(*arguments, cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(f"refiner-ds {arguments[0]}: {words}") and done.stderr.count("\n") == 1
    assert list(tmp_path.iterdir()) == []
