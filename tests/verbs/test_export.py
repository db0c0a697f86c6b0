"""An export from what any number of ranks wrote: exact, checked, in any precision, in little memory, replaceable."""

import json
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from diffusers import DiffusionPipeline
from PIL import Image
from safetensors.torch import load_file

from refiner_ds.cli import main
from refiner_ds.refiners.unclip.base import TINY, make_parts, save_base
from refiner_ds.refiners.unclip.refiner import UnclipRefiner
from tests.checkpoints import trained_weights, write_checkpoint

REPO = Path(__file__).parents[2]
DTYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}


@pytest.fixture(scope="module")
def weights(tiny_base):
    """A trained network's, none of them zero throughout."""
    torch.manual_seed(5)
    named = trained_weights(UnclipRefiner(str(tiny_base)))
    return {name: weight + 0.02 * torch.randn_like(weight) for name, weight in named.items()}


@pytest.fixture
def run(tiny_base, weights, tmp_path):
    """A run with a checkpoint of step 3 and a newer one of step 7, whose weights are negative."""
    write_checkpoint(tmp_path / "run", 3, tiny_base, weights)
    write_checkpoint(tmp_path / "run", 7, tiny_base, {name: -weight for name, weight in weights.items()})
    return tmp_path / "run"


def export(*arguments):
    return main(["export", *map(str, arguments)])


def unet_in(folder):
    return load_file(folder / "unet" / "diffusion_pytorch_model.safetensors")


def flip_a_bit(file):
    content = bytearray(file.read_bytes())
    content[-100] ^= 4
    file.write_bytes(content)


def test_the_newest_checkpoint_of_a_run_is_exported_exactly_whatever_ranks_wrote_it(run, weights, tmp_path):
    (run / "metrics.jsonl").write_text('{"step": 7, "time": 0, "val/psnr": 21.5, "train/loss": 1}\n')
    assert export(run, tmp_path / "out") == 0
    found = unet_in(tmp_path / "out")
    assert found.keys() == weights.keys()
    assert all(torch.equal(found[name], -weight) for name, weight in weights.items())
    record = json.loads((tmp_path / "out" / "export.json").read_text())
    assert (record["step"], record["images_seen"], record["figures"]) == (7, 56, {"val/psnr": 21.5})
    assert (record["weights"], record["dtype"], record["lora"]) == ("trained", "fp32", "merged")
    assert "unet/diffusion_pytorch_model.safetensors" in record["files"]


@pytest.mark.parametrize("how", ["a bit", "a file", "the end", "the commit"])
def test_a_damaged_checkpoint_is_refused_by_its_name_and_told_where_an_older_one_stands_in(
    run, weights, tmp_path, capsys, how
):
    newest = run / "checkpoint-7"
    file = newest / "rank-00001.safetensors"
    if how == "a bit":
        flip_a_bit(file)
    elif how == "a file":
        file.unlink()
    elif how == "the end":
        file.write_bytes(file.read_bytes()[:-50])
    else:
        (newest / "commit.json").write_text("{")
    assert export(newest, tmp_path / "out") == 2
    told = capsys.readouterr().err
    assert str(newest) in told and ("is damaged" in told or "is no complete checkpoint (" in told)
    assert not (tmp_path / "out").exists()
    assert export(run, tmp_path / "out") == 0
    told = capsys.readouterr()
    assert f"note: {newest} is not whole (" in told.err and "; checkpoint-3 is taken" in told.err
    assert "refiner of step 3" in told.out
    assert torch.equal(unet_in(tmp_path / "out")["conv_in.weight"], weights["conv_in.weight"])


def test_a_run_of_damaged_checkpoints_alone_is_refused_with_what_ails_each(run, tmp_path, capsys):
    for step in (3, 7):
        flip_a_bit(run / f"checkpoint-{step}" / "rank-00000.safetensors")
    assert export(run, tmp_path / "out") == 2
    told = capsys.readouterr().err
    assert "holds no whole checkpoint" in told
    assert all(f"checkpoint-{step}: rank-00000.safetensors is not what was written" in told for step in (3, 7))


def test_parts_that_lie_on_other_nodes_are_missed_before_the_base_is_loaded(weights, tiny_base, tmp_path, capsys):
    here = write_checkpoint(
        tmp_path, 2, tiny_base, weights, elsewhere={"rank-00003.safetensors": "node1"},
        pretrained_model_name_or_path="no/such/base/here",
    )  # fmt: skip
    assert export(here, tmp_path / "out") == 2
    told = capsys.readouterr().err
    assert "rank-00003.safetensors lies on node1" in told and "bring all its rank-*.safetensors files into" in told


def test_a_weight_that_is_not_finite_is_named(weights, tiny_base, tmp_path, capsys):
    broken = {**weights, "conv_out.bias": torch.full_like(weights["conv_out.bias"], float("nan"))}
    assert export(write_checkpoint(tmp_path, 2, tiny_base, broken), tmp_path / "out") == 2
    assert "has NaN or infinity in conv_out.bias, so it would repair nothing" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", ["fp16", "bf16"])
def test_all_weights_are_written_in_the_precision_asked_for_and_the_pipeline_repairs(
    run, weights, tmp_path, monkeypatch, name
):
    monkeypatch.setattr("diffusers.utils.dynamic_modules_utils.HF_MODULES_CACHE", str(tmp_path / "modules"))
    out, dtype = tmp_path / "out", DTYPES[name]
    assert export(run, out, "--dtype", name) == 0
    files = [*out.rglob("*.safetensors")]
    assert len(files) == 5
    for file in files:
        kinds = {tensor.dtype for tensor in load_file(file).values() if tensor.is_floating_point()}
        assert kinds == {dtype}, file
    assert all(torch.equal(tensor, -weights[key].to(dtype)) for key, tensor in unet_in(out).items() for key in [key])
    pipeline = DiffusionPipeline.from_pretrained(out, trust_remote_code=True, torch_dtype=torch.bfloat16)
    assert {parameter.dtype for parameter in pipeline.unet.parameters()} == {torch.bfloat16}
    grey = Image.new("RGB", (48, 32), "grey")
    assert pipeline(grey, grey, num_inference_steps=1).images[0].size == (48, 32)


def test_a_weight_that_fp16_cannot_hold_is_named_and_bf16_holds_it(weights, tiny_base, tmp_path, capsys):
    large = {**weights, "conv_out.bias": weights["conv_out.bias"] + 70000}
    checkpoint = write_checkpoint(tmp_path, 2, tiny_base, large)
    assert export(checkpoint, tmp_path / "out", "--dtype", "fp16") == 2
    words = "--dtype fp16: conv_out.bias of the unet has a weight of 70000"
    told = capsys.readouterr().err
    assert words in told and "take --dtype bf16 or fp32" in told
    assert not (tmp_path / "out").exists()
    assert export(checkpoint, tmp_path / "out", "--dtype", "bf16") == 0


def test_an_earlier_export_is_replaced_whole_and_nothing_else_is(run, weights, tmp_path, capsys):
    out = tmp_path / "out"
    assert export(run / "checkpoint-3", out) == 0
    assert export(run, out) == 2
    assert "is not empty, and an export is never mixed" in capsys.readouterr().err
    assert export(run, out, "--replace") == 0
    assert torch.equal(unet_in(out)["conv_in.weight"], -weights["conv_in.weight"])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "run"]

    (out / "unet" / "notes.txt").write_text("mine")
    assert export(run, out, "--replace") == 2
    told = capsys.readouterr().err
    assert f"--replace would delete {out / 'unet' / 'notes.txt'}, which is no part of the export there" in told
    assert export(run, run, "--replace") == 2
    assert f"--replace would delete {run}, which has no export.json" in capsys.readouterr().err
    assert (run / "checkpoint-7" / "commit.json").exists()


def test_what_a_kill_between_the_two_renames_left_gets_its_name_back(run, tmp_path, capsys):
    out = tmp_path / "out"
    assert export(run / "checkpoint-3", out) == 0
    out.rename(tmp_path / ".out.replaced")
    flip_a_bit(run / "checkpoint-7" / "rank-00000.safetensors")
    assert export(run / "checkpoint-7", out, "--replace") == 2
    assert json.loads((out / "export.json").read_text())["step"] == 3


@pytest.mark.slow
@pytest.mark.parametrize("name", ["fp32", "bf16"])
def test_memory_stays_under_twice_the_model(large, tmp_path, name):
    command = [sys.executable, "-m", "tests.resident", "export", large / "run", tmp_path / "out", "--dtype", name]
    done = subprocess.run([*map(str, command)], cwd=REPO, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    taken = int(done.stdout.split()[-1])  # beside mapped files, whose pages the system takes back when it needs them
    size = sum(path.stat().st_size for path in (tmp_path / "out").rglob("*.safetensors"))
    assert taken < 2 * size, f"{taken / 1e6:.0f} MB for a model of {size / 1e6:.0f} MB"


@pytest.fixture(scope="module")
def large(tmp_path_factory):
    """A model of 514 MB, of which the UNet takes 41% (45% of SD 2.1 unCLIP), and a checkpoint with its average."""
    folder = tmp_path_factory.mktemp("large")
    shapes = replace(
        TINY, unet_channels=(96, 192, 384, 384), heads=(3, 6, 12, 12),
        text_width=512, text_layers=8, text_heads=8, vision_width=640, vision_layers=10, vision_heads=8,
    )  # fmt: skip
    save_base(make_parts(shapes, 0, folder / "base"), folder / "base")
    weights = trained_weights(UnclipRefiner(str(folder / "base")))
    write_checkpoint(folder / "run", 1, folder / "base", weights, average=weights)
    yield folder
    shutil.rmtree(folder)
