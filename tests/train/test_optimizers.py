"""The optimizers under ZeRO: each learns, and resumes to the last bit; what cannot be made is refused beforehand."""

import importlib.util
import json
import os
import subprocess
import sys

import pytest
import torch

from refiner_ds.config.optimizer import EIGHT_BIT, TYPES, OptimizerChoice
from refiner_ds.errors import UserError
from refiner_ds.train.optimizers import make_optimizer, require_sound
from tests.train.launch import REPO

RATES = {"SGD": 0.3, "Adagrad": 0.03, "RMSprop": 1e-3, "RAdam": 0.1}
PARAMS = {
    "Adam": {"adam_w_mode": False},
    "SGD": {"momentum": 0.9, "nesterov": True},
    "Adagrad": {"lr_decay": 0.01},
    "RMSprop": {"momentum": 0.5, "centered": True},
}
PRECISIONS = {
    "fp32": {},
    "bf16": {"bf16": {"enabled": True}},
    "mixed": {"bf16": {"enabled": True}, "data_types": {"grad_accum_dtype": "fp32"}},
}


def case_of(name: str, stage: int, precision: str, **zero: object) -> dict:
    """A case for tests/train/one_rank.py; decay is left to flags, so that another engine can have another."""
    section = {"type": name, "params": {"weight_decay": "auto", **PARAMS.get(name, {})}}
    json_ = {"zero_optimization": {"stage": stage, **zero}, **PRECISIONS[precision]}
    eight = name == EIGHT_BIT
    return {
        "json": json_ if eight else {**json_, "optimizer": section},
        "flags": {"use_8bit_adam": eight, "adam_weight_decay": 0.001},
        "other_flags": {"adam_weight_decay": 0.002},
        "rate": RATES.get(name, 3e-3),
    }


NAMES = [*TYPES, EIGHT_BIT]
CASES = {f"{name}-2-mixed": case_of(name, 2, "mixed") for name in NAMES}
CASES |= {f"{name}-1-mixed": case_of(name, 1, "mixed") for name in ("AdamW", "SGD", "Adagrad", EIGHT_BIT)}
CASES |= {f"{EIGHT_BIT}-{stage}-fp32": case_of(EIGHT_BIT, stage, "fp32") for stage in (1, 2)}
CASES["Adagrad-1-bf16"] = case_of("Adagrad", 1, "bf16")
CASES[f"{EIGHT_BIT}-offloaded"] = case_of(EIGHT_BIT, 2, "mixed", offload_optimizer={"device": "cpu"})


@pytest.fixture(scope="module")
def told():
    """What came of every case, in a process of its own: an engine needs a process group."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.train.one_rank"],
        input=json.dumps(CASES),
        cwd=REPO,
        env={**os.environ, "DS_ACCELERATOR": "cpu", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_it_learns_and_resumes_to_the_last_bit(told, name):
    losses, resumed = told[name]["losses"], told[name]["resumed"]
    assert losses[-1] < 0.8 * losses[0]
    assert losses[len(losses) - len(resumed) :] == resumed
    assert told[name]["weights_are_equal"]


@pytest.mark.slow
def test_the_timeout_reaches_the_group_in_which_zero_reduces(told):
    """Deepspeed would give it torch's default, which is half an hour."""
    assert {case["zeros_timeout_seconds"] for case in told.values()} == {120}


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_a_resumed_run_has_its_present_hyperparameters_and_rate(told, name):
    group = told[name]["group"]
    assert (group["weight_decay"], group["lr"]) == (0.002, 0.5)
    assert told[name]["optimizer"] == name.split("-")[0]
    own = {key: value for key, value in PARAMS.get(told[name]["optimizer"], {}).items() if key in group}
    assert {key: group[key] for key in own} == own


@pytest.mark.slow
@pytest.mark.parametrize("case", [name for name in CASES if name.startswith(EIGHT_BIT)])
def test_eight_bits_are_eight_bits_and_come_to_much_the_same(told, case):
    numbers, state = told[case]["numbers"], told[case]["state"]
    assert [state[name] for name in ("state1", "state2")] == [["torch.uint8", pytest.approx(numbers, abs=8)]] * 2
    full = sum(size for _, size in told["AdamW-2-mixed"]["state"].values())
    assert full >= 8 * numbers
    assert sum(size for _, size in state.values()) < 0.35 * full  # beside the moments, tables and a scale per block
    assert told[case]["losses"] == pytest.approx(told["AdamW-2-mixed"]["losses"], rel=0.02)


def test_torchs_adamw_is_made_as_it_was_chosen_and_fused():
    weight = torch.nn.Parameter(torch.zeros(1))
    choice = OptimizerChoice("AdamW", {"betas": (0.8, 0.9), "eps": 1e-6, "weight_decay": 0.1})
    made = make_optimizer(choice, [weight])
    assert type(made) is torch.optim.AdamW
    expected = {**choice.params, "lr": 0.0, "fused": True}
    assert {key: made.defaults[key] for key in expected} == expected
    plain = OptimizerChoice("AdamW", {"foreach": True})
    assert make_optimizer(plain, [weight]).defaults["fused"] is None
    assert "fused" not in make_optimizer(OptimizerChoice("RAdam", {}), [weight]).defaults


@pytest.mark.parametrize("name", NAMES)
def test_what_can_be_made_is_sound(name):
    require_sound(OptimizerChoice(name, {}))


@pytest.mark.parametrize(
    ("name", "params", "words"),
    [
        (
            "SGD",
            {"betas": [0.9, 0.99]},
            "optimizer.params.betas .* is no parameter of SGD that can be set here; remove it",
        ),
        ("AdamW", {"maximize": True}, "optimizer.params.maximize .* is no parameter of AdamW that can be set here"),
        ("SGD", {"momentum": -1}, r"makes no SGD \(Invalid momentum value: -1\); mend the parameter"),
        ("SGD", {"nesterov": True}, r"makes no SGD \(Nesterov momentum requires .*\); mend the parameter"),
        ("AdamW", {"betas": [0.9, "much"]}, r"makes no AdamW \(.*\); mend the parameter"),
        ("AdamW", {"foreach": True, "fused": True}, r"makes no AdamW \(.*\); mend the parameter"),
    ],
)
def test_what_cannot_be_made_is_refused_in_words(name, params, words):
    with pytest.raises(UserError, match=words):
        require_sound(OptimizerChoice(name, params))


def test_eight_bits_without_bitsandbytes_are_refused_with_what_to_install(monkeypatch):
    assert importlib.util.find_spec("bitsandbytes")  # the tests above need it
    monkeypatch.setitem(sys.modules, "bitsandbytes", None)  # as if it were not installed
    monkeypatch.setitem(sys.modules, "bitsandbytes.optim", None)
    words = (
        r"^--use_8bit_adam needs bitsandbytes, which is not here \(.*\); pip install bitsandbytes, or leave the flag"
    )
    with pytest.raises(UserError, match=words):
        require_sound(OptimizerChoice(EIGHT_BIT, {}))
