"""`refiner-ds bench encode`: all ways make the same numbers of the same pictures, and what a run leaves."""

import json

import pytest

from refiner_ds.bench.encoding import IN_MEMORY
from refiner_ds.bench.turns_report import BASELINE, OURS
from refiner_ds.cli import main


@pytest.mark.slow
def test_a_tiny_run_measures_all_ways_of_encoding_the_same_pictures(refiner_ds_command, tmp_path):
    # crops as wide as the pictures, so that the baseline's place of its crop, which it draws, is ours
    given = ("--device", "cpu", "--resolution", "64x240", "--train_batch_size", 2, "--rounds", 1)
    files = ("--json", tmp_path / "f.json", "--markdown", tmp_path / "f.md")
    done = refiner_ds_command("bench", "encode", *given, *files, timeout=240, CUDA_VISIBLE_DEVICES="")
    assert done.returncode == 0, done.stderr
    told, page = json.loads((tmp_path / "f.json").read_text()), (tmp_path / "f.md").read_text()
    assert done.stdout == page and "`refiner-ds bench encode --device cpu --resolution 64x240 " in page
    assert "micro-batch 2, ours in fp32" in page and "| encoding | pairs/s | ms a pair |" in page
    rows = {row["name"]: row for row in told["rows"]}
    assert [*rows] == [OURS, BASELINE, IN_MEMORY]
    values = [row["rounds"][0]["first_value"] for row in rows.values()]
    assert values[1] == values[2] == pytest.approx(values[0], rel=1e-3)  # grey levels are rounded by PIL and by torch
    assert rows[OURS]["tflop_per_pair"] == pytest.approx(rows[BASELINE]["tflop_per_pair"], rel=1e-6)
    for row in rows.values():
        (turn,) = row["rounds"]
        assert turn["count"] % 2 == 0 and row["peak_mb"] > 100 and row["precision"] == "fp32"
        assert turn["pairs_per_second"] * turn["seconds"] == pytest.approx(turn["count"])
        assert row["share_of_product"]["median"] > 0
    assert [(ratio["row"], ratio["other"]) for ratio in told["ratios"]] == [(OURS, BASELINE), (OURS, IN_MEMORY)]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--rounds", "0"], "--rounds 0 measures nothing; give at least 1."),
        (["--train_batch_size", "0"], "--train_batch_size 0 leaves nothing to encode; give at least 1."),
        (["--resolution", "64"], "--resolution 64 is no HEIGHTxWIDTH, so no crop can be cut; write e.g. 512x512."),
        (["--size", "huge"], "--size"),
    ],
)
def test_what_cannot_be_encoded_is_refused_in_one_sentence(capsys, arguments, words):
    assert main(["bench", "encode", *arguments]) == 2
    told = capsys.readouterr().err.strip()
    assert words in told and len(told.splitlines()) == 1 and told.endswith(".")
