"""`refiner-ds bench repair`: both ways make the same picture, ours with half of the rows, and what a run leaves."""

import json

import pytest
import torch

from refiner_ds.batch import Batch
from refiner_ds.bench.repairing import contenders
from refiner_ds.bench.turns_report import BASELINE, OURS
from refiner_ds.cli import main
from refiner_ds.refiners.protocol import Sampling

CPU = torch.device("cpu")


@pytest.mark.parametrize("sampling", [Sampling(3, 4.0), Sampling(2, 1.0)], ids=str)
def test_both_ways_repair_to_the_same_pictures_and_ours_takes_half_of_the_rows(tiny_base, sampling):
    torch.manual_seed(0)
    render, gt, cond = torch.randint(0, 256, (3, 2, 3, 32, 48), dtype=torch.uint8)
    batch = Batch(render, gt, cond, (4, 5), ("a", "b"))
    ours, baseline = (each.make() for each in contenders(tiny_base, batch, sampling, torch.float32, CPU))
    networks, rows = [ours._refiner.network, baseline._network], []
    weights = {name: weight + 0.05 * torch.randn_like(weight) for name, weight in networks[0].state_dict().items()}
    for network in networks:  # else the render would count for nothing, as its weights begin at zero
        network.load_state_dict(weights)
        network.register_forward_pre_hook(lambda module, args: rows.append(len(args[0])))
    mine = ours.repair()
    halves, calls = 1 + (sampling.guidance_scale != 1), sampling.num_inference_steps + 1
    assert rows == [2 * halves] * (1 + calls)
    rows.clear()
    theirs = baseline.repair()
    assert rows == [4 * halves] * calls
    assert mine.shape == theirs.shape == render.shape and mine.dtype == theirs.dtype == torch.uint8
    off = (mine.int() - theirs.int()).abs()
    assert mine.float().std() > 1 and off.max() <= 2 and off.float().mean() < 0.1
    assert float(ours.step()) == pytest.approx(float(baseline.step()), rel=1e-3)


@pytest.mark.slow
def test_a_tiny_run_measures_both_ways(refiner_ds_command, tmp_path):
    given = ("--device", "cpu", "--resolution", "32x64", "--steps", 4, "--batch_size", 2, "--rounds", 1)
    files = ("--json", tmp_path / "f.json", "--markdown", tmp_path / "f.md")
    done = refiner_ds_command("bench", "repair", *given, *files, timeout=240, CUDA_VISIBLE_DEVICES="")
    assert done.returncode == 0, done.stderr
    told, page = json.loads((tmp_path / "f.json").read_text()), (tmp_path / "f.md").read_text()
    assert done.stdout == page and "pictures at once: 2, 4 steps, guidance 10, fp32" in page
    assert "| repair | pictures/s | ms a picture |" in page
    assert (told["about"]["batch_size"], told["about"]["steps"], told["about"]["guidance_scale"]) == (2, 4, 10)
    rows = {row["name"]: row for row in told["rows"]}
    assert [*rows] == [OURS, BASELINE]
    for row in rows.values():
        (turn,) = row["rounds"]
        assert turn["pictures_per_second"] * turn["seconds"] == pytest.approx(turn["count"])
        assert row["pictures_per_second"]["median"] == turn["pictures_per_second"] and row["peak_mb"] > 100
    assert 0.4 < rows[OURS]["tflop_per_picture"] / rows[BASELINE]["tflop_per_picture"] < 0.8
    (ratio,) = told["ratios"]
    assert ratio["measured"]["median"] > 0


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--steps", "0"], "--steps 0 repairs nothing; take 1 to 1000, the steps of the schedule."),
        (["--steps", "1001"], "--steps 1001 repairs nothing"),
        (["--batch_size", "0"], "--batch_size 0 leaves nothing to repair; give at least 1."),
        (["--rounds", "0"], "--rounds 0 measures nothing; give at least 1."),
    ],
)
def test_what_cannot_be_repaired_is_refused_in_one_sentence(capsys, arguments, words):
    assert main(["bench", "repair", *arguments]) == 2
    told = capsys.readouterr().err.strip()
    assert words in told and len(told.splitlines()) == 1 and told.endswith(".")
