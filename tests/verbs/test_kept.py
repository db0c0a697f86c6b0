"""A folder of repairs over several commands: what is done stays, kinds are not mixed, a kill leaves no half picture."""

import platform
import shutil
import subprocess
import sys

import pytest
from PIL import Image

from refiner_ds.verbs.kept import digest_of_model
from tests.verbs.listing import contents


def test_a_folder_keeps_its_names_and_only_what_is_missing_is_made(repair, folders, tmp_path):
    out = tmp_path / "out"
    (folders["render"] / "a" / "notes.txt").write_text("no picture")
    (folders["render"] / "a" / "._000.png").write_text("some system's own")
    assert repair(out, **folders) == (0, f"3 repaired in {out}")
    first = contents(out)
    assert sorted(first) == ["a/000.png", "a/deep/001.png", "b/000.png", "repair.json"]
    assert all(Image.open(out / name).size == (64, 48) for name in first if name != "repair.json")
    assert len(set(first.values())) == 4

    written = (out / "b" / "000.png").stat().st_mtime_ns
    (out / "a" / "000.png").unlink()
    assert repair(out, **folders) == (0, f"1 repaired, 2 were there, in {out}")
    assert contents(out) == first and (out / "b" / "000.png").stat().st_mtime_ns == written
    assert repair(out, **folders) == (0, f"0 repaired, 3 were there, in {out}")


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (["--seed", 1], "were made with seed 0 and this command has 1"),
        (["--num_inference_steps", 2], "were made with num_inference_steps 1 and this command has 2"),
        (["--guidance_scale", 3], "were made with guidance_scale 1.0 and this command has 3.0"),
        (["--tile_size", 32], "were made with tile_size none and this command has 32"),
        (["--scheduler", "DDIMScheduler"], "were made with scheduler the model's own and this command has DDIMSch"),
    ],
)
def test_other_settings_are_not_mixed_into_a_folder(repair, refused, folders, tmp_path, more, words):
    out = tmp_path / "out"
    repair(out, **folders)
    (out / "a" / "000.png").unlink()
    sentence = refused(out, *more, **folders)
    assert f"output folder {out} holds repairs that {words}" in sentence
    assert sentence.endswith("so two kinds would be mixed; name another --output, or give what its repair.json tells.")
    same = ["--num_inference_steps", 1, "--guidance_scale", 1]  # what the model's own are
    assert repair(out, *same, **folders)[1].startswith("1 repaired, 2 were there")


def test_another_model_is_not_mixed_in_and_an_equal_one_elsewhere_goes_on(repair, refused, model, folders, tmp_path):
    out, moved, other = tmp_path / "out", tmp_path / "moved", tmp_path / "other"
    repair(out, **folders)
    shutil.copytree(model, moved)
    (moved / "README.md").write_text("a card")
    assert digest_of_model(moved) == digest_of_model(model)
    shutil.copytree(model, other)
    weights = other / "unet" / "diffusion_pytorch_model.safetensors"
    content = bytearray(weights.read_bytes())
    content[len(content) // 2] ^= 1  # one bit in the midst of it
    weights.write_bytes(content)
    words = "were made by a model whose files differ from those of --model, so two kinds would be mixed; name another"
    assert words in refused(out, "--model", other, **folders)
    assert repair(out, "--model", moved, **folders)[1].startswith("0 repaired, 3 were there")


def test_what_was_made_of_other_files_or_by_another_hand_does_not_count_as_done(repair, refused, folders, tmp_path):
    out = tmp_path / "out"
    repair(out, **folders)
    shutil.copy(folders["cond"] / "b/000.png", folders["cond"] / "a/deep/001.png")
    words = (
        f"{out}/a/deep/001.png is there, but was not made of {folders['render']}/a/deep/001.webp and {folders['cond']}"
    )
    sentence = refused(out, **folders)
    assert words in sentence and "take it away to have it made anew, or name another --output" in sentence
    shutil.copy(folders["render"] / "b/000.png", out / "a/deep/001.png")
    assert words in refused(out, **folders)
    (out / "a/deep/001.png").write_text("cut off")
    assert words in refused(out, **folders)
    (out / "a/deep/001.png").unlink()
    assert repair(out, **folders)[1].startswith("1 repaired, 2 were there")


def test_a_folder_that_does_not_tell_what_made_its_pictures(repair, refused, folders, tmp_path):
    out = tmp_path / "out"
    repair(out, **folders)
    (out / "repair.json").write_text("{")
    assert f"{out / 'repair.json'} cannot be read (" in refused(out, **folders)
    (out / "repair.json").unlink()
    words = f"output folder {out} holds repairs but no repair.json, so nothing tells what made them; name another"
    assert words in refused(out, **folders)


def test_half_a_picture_of_a_killed_run_is_not_done_and_goes(repair, folders, tmp_path):
    out = tmp_path / "out"
    repair(out, **folders)
    ended = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, text=True)
    (out / "a" / "000.png").rename(out / "a" / f".000.png.making-{platform.node()}-{ended.stdout.strip()}")
    assert repair(out, **folders) == (0, f"1 repaired, 2 were there, in {out}")
    assert [path.name for path in sorted((out / "a").iterdir())] == ["000.png", "deep"]
