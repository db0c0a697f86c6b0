"""Gradients of several micro-batches: the same update whoever adds them up, and what ranks exchange for it, counted."""

import json
import math
import os
import subprocess
import sys

import pytest
import torch

from refiner_ds.estimate.traffic import traffic
from tests.train.accumulating import ACCUMULATION, STEPS
from tests.train.launch import REPO, free_port

pytestmark = pytest.mark.slow
PRECISIONS = {
    "fp32": {},
    "bf16": {"bf16": {"enabled": True}},
    "mixed": {"bf16": {"enabled": True}, "data_types": {"grad_accum_dtype": "fp32"}},
    "fp16": {"fp16": {"enabled": True, "initial_scale_power": 4, "hysteresis": 1}},
}
CLOSE = {"fp32": 1e-5, "bf16": 0.08, "mixed": 0.08, "fp16": 0.03}
"""Of the length of all updates, how far they may lie apart: one that is lost or made twice would be 0.3 of it."""
CLOSE_NORMS = {"fp32": 1e-5, "bf16": 5e-3, "mixed": 5e-3, "fp16": 5e-3}
LAUNCHES = 51
"""Operators of an update on one rank that compute or copy, by torch 2.13 on a CPU; one more for each of the six
parameters would be seen."""
BUCKET = 5000
"""Weights of a reduce bucket, of which there are several."""
CASES = {
    f"{precision}-{stage}": {
        "json": {"zero_optimization": {"stage": stage, "reduce_bucket_size": BUCKET}, **section},
        "flags": {},
    }
    for precision, section in PRECISIONS.items()
    for stage in (1, 2)
}
SCALES = {"steady": {"loss_scale": 16}, "rising": {"initial_scale_power": 4, "loss_scale_window": 1}}
RISING = {
    f"{name}-{optimizer}": {
        "json": {
            "zero_optimization": {"stage": 2},
            "fp16": {"enabled": True, **scale},
            "optimizer": {"type": optimizer},
        },
        "flags": {},
    }
    for name, scale in SCALES.items()
    for optimizer in ("SGD", "Adam")
}


def told_by(ranks: int) -> dict:
    launcher = ["-m", "torch.distributed.run", "--nproc-per-node", str(ranks), "--master-port", free_port()]
    done = subprocess.run(
        [sys.executable, *launcher, "-m", "tests.train.accumulating", json.dumps({**CASES, **RISING})],
        cwd=REPO,
        env={**os.environ, "DS_ACCELERATOR": "cpu", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


@pytest.fixture(scope="module")
def told():
    """By number of ranks and case."""
    return {ranks: told_by(ranks) for ranks in (1, 2)}


@pytest.mark.parametrize("precision", PRECISIONS)
def test_every_stage_and_number_of_ranks_makes_the_same_updates(told, precision):
    runs = [told[ranks][f"{precision}-{stage}"] for ranks in (1, 2) for stage in (1, 2)]
    reference, *others = [torch.tensor(run["weights"]) for run in runs]
    way = (reference - torch.tensor(runs[0]["start"])).norm()
    for run, weights in zip(runs[1:], others, strict=True):
        assert float((weights - reference).norm() / way) < CLOSE[precision]
        assert run["norms"] == pytest.approx(runs[0]["norms"], rel=CLOSE_NORMS[precision])


@pytest.mark.parametrize("name", CASES)
def test_a_lost_micro_batch_of_one_rank_skips_its_update_and_no_other(told, name):
    for ranks in (1, 2):
        run = told[ranks][name]
        assert run["applied"] == [True, True, False, True]
        assert all(map(math.isfinite, run["weights"]))


@pytest.mark.parametrize("optimizer", ["SGD", "Adam"])
def test_an_update_that_raises_the_loss_scale_is_as_long_as_one_that_does_not(told, optimizer):
    for ranks in (1, 2):
        steady, rising = (told[ranks][f"{name}-{optimizer}"] for name in SCALES)
        one, other, start = (torch.tensor(each) for each in (steady["weights"], rising["weights"], steady["start"]))
        assert rising["applied"] == steady["applied"] and float((one - start).norm()) > 0
        assert float((one - other).norm() / (one - start).norm()) < CLOSE["fp16"]


@pytest.mark.parametrize("name", CASES)
def test_an_update_launches_no_more_operators_than_it_did_and_none_for_each_parameter(told, name):
    assert told[1][name]["launches"] <= LAUNCHES


@pytest.mark.parametrize("name", CASES)
def test_masters_take_memory_of_their_own_only_where_the_network_is_in_16_bits(told, name):
    for ranks in (1, 2):
        run = told[ranks][name]
        expected = 0 if name.startswith("fp32") else 4 * run["count"] / ranks
        assert run["bytes_of_masters"] == pytest.approx(expected, rel=0.01)


@pytest.mark.parametrize("name", CASES)
def test_the_host_waits_for_the_device_in_no_micro_batch(told, name):
    assert all(told[ranks][name]["waits"] <= STEPS for ranks in (1, 2)), "in an update at most"


@pytest.mark.parametrize("name", CASES)
def test_ranks_exchange_what_plan_counts(told, name):
    precision, stage = name.split("-")
    run = told[2][name]
    planned = traffic(run["count"], 2, int(stage), ACCUMULATION, 4 if precision == "fp32" else 2)
    reduced = run["bytes"].get("all_reduce", 0) + run["bytes"].get("reduce_scatter_single", 0)
    assert reduced == pytest.approx(STEPS * planned.reduced, rel=0.01)
    assert ("reduce_scatter_single" in run["bytes"]) == (stage == "1")
    # each rank gives its half to be gathered; an update that is skipped gathers nothing
    gathered = 2 * sum(run["bytes"].get(kind, 0) for kind in ("all_gather_into_tensor", "all_gather"))
    assert gathered == pytest.approx(sum(run["applied"]) * planned.gathered, rel=0.01)
