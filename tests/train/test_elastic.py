"""A checkpoint of two ranks goes on with one, two, three or four, at another ZeRO stage and in another precision."""

import json
import os
import subprocess
import sys
from itertools import product
from pathlib import Path

import pytest
import torch

from refiner_ds.checkpoint.state import SavedState
from tests.train.launch import REPO, free_port

pytestmark = pytest.mark.slow
PRECISIONS = {
    "fp32": {},
    "bf16": {"bf16": {"enabled": True}, "data_types": {"grad_accum_dtype": "fp32"}},
    "fp16": {
        "fp16": {"enabled": True, "initial_scale_power": 20, "hysteresis": 1},
        "data_types": {"grad_accum_dtype": "fp32"},
    },
}
"""fp16 starts at a scale that overflows, so that some updates are skipped."""
SAVED = [f"{precision}-{stage}" for precision, stage in product(PRECISIONS, (1, 2))]
OTHERS = {"bf16-2": "fp16-1", "fp16-2": "fp32-2", "fp32-1": "bf16-1"}
"""What is continued otherwise than it was saved."""
EMA = 0.9


def config(name: str) -> dict:
    precision, stage = name.split("-")
    return {"zero_optimization": {"stage": int(stage)}, **PRECISIONS[precision]}


def run(folder: Path, num_ranks: int, cases: dict[str, dict]) -> dict[str, dict]:
    """Runs tests/train/cut_anew.py on so many ranks; what came of each case."""
    asked, told = folder / f"asked-{num_ranks}.json", folder / f"told-{num_ranks}.json"
    asked.write_text(json.dumps(cases))
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", str(num_ranks)]
    done = subprocess.run(
        [*command, "--master-port", free_port(), "-m", "tests.train.cut_anew", str(asked), str(told)],
        cwd=REPO,
        env={**os.environ, "DS_ACCELERATOR": "cpu", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    return json.loads(told.read_text())


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("elastic")


@pytest.fixture(scope="module")
def saved(folder):
    """Every case on two ranks in one go, with a checkpoint half-way: its losses and its folder."""
    cases = {name: {"json": config(name), "ema": EMA, "save": str(folder / "two" / name)} for name in SAVED}
    told = run(folder, 2, cases)
    return {name: (told[name], folder / "two" / name / "checkpoint-4") for name in SAVED}


@pytest.fixture(scope="module", params=[1, 2, *(pytest.param(ranks, marks=pytest.mark.long) for ranks in (3, 4))])
def continued(request, folder, saved):
    """The same, continued by another number of ranks: by name, what came of it, and what it saved at once."""
    ranks = request.param
    cases = {
        name: {"json": config(name), "ema": EMA, "load": str(path), "save": str(folder / f"on-{ranks}" / name)}
        for name, (_, path) in saved.items()
    }
    for held, other in OTHERS.items():
        path = saved[held][1]
        save = folder / f"on-{ranks}" / f"{held}-as-{other}"
        cases[save.name] = {"json": config(other), "ema": EMA, "load": str(path), "save": str(save)}
    told = run(folder, ranks, cases)
    return ranks, {name: (told[name], Path(cases[name]["save"]) / "checkpoint-4") for name in cases}


def test_every_value_is_taken_over_as_it_was(saved, continued):
    _, found = continued
    for name, (_, path) in found.items():
        held, taken = SavedState(saved[name.partition("-as-")[0]][1]), SavedState(path)
        assert taken.shapes == held.shapes and taken.kinds == held.kinds == {
            "master",
            "average",
            "exp_avg",
            "exp_avg_sq",
        }
        for kind, parameter in product(held.kinds, held.shapes):
            assert torch.equal(taken.whole(parameter, kind), held.whole(parameter, kind)), (name, kind, parameter)
        assert torch.equal(taken.loose(0)["0.step"], held.loose(0)["0.step"])


def test_the_losses_go_on(saved, continued):
    ranks, found = continued
    for name in SAVED:
        expected, (told, _) = saved[name][0], found[name]
        if ranks == 2:
            assert told["losses"] == expected["losses"][4:], f"{name}: to the last bit"
            assert (told["skipped"], told["scale"]) == (expected["skipped"], expected["scale"]), name
        compared = (
            1 if name.startswith("fp16") else 4
        )  # at a scale that nearly overflows, rounding decides what is skipped
        assert told["losses"][:compared] == pytest.approx(expected["losses"][4:][:compared], rel=5e-3), (name, ranks)


def test_another_precision_and_stage_go_on_too(saved, continued):
    _, found = continued
    for held, other in OTHERS.items():
        told = found[f"{held}-as-{other}"][0]
        expected = saved[held][0]["losses"][4:]
        assert told["losses"][0] == pytest.approx(expected[0], rel=2e-2)
        assert told["losses"][-1] < saved[held][0]["losses"][0], "it has not been trained anew"


def test_fp16_had_updates_to_skip(saved):
    assert saved["fp16-2"][0]["skipped"] >= 1 and saved["bf16-2"][0]["skipped"] == 0
