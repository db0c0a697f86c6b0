"""The optimizer: the JSON's section owns it, flags fill what it leaves open, and neither may contradict the other."""

from pathlib import Path

import pytest

from refiner_ds.config.deepspeed import resolve
from refiner_ds.config.optimizer import REFUSED, TYPES
from refiner_ds.config.training import Train
from refiner_ds.errors import UserError

ADAM = {"betas": [0.9, 0.999], "eps": 1e-8, "weight_decay": 1e-2}


def resolved(section: object, **given: object):
    """What comes of an optimizer section (None for none) and flags."""
    config = {"bf16": {"enabled": True}, "zero_optimization": {"stage": 2}}
    flags = Train("shards", "base", Path("run"), **given)  # type: ignore[arg-type]
    return resolve(config if section is None else {**config, "optimizer": section}, flags, 1)


@pytest.mark.parametrize(
    "section", [None, {"type": "AdamW"}, {"type": "AdamW", "params": dict.fromkeys(("lr", *ADAM), "auto")}]
)
def test_what_is_left_open_comes_from_the_flags_or_is_adamws_default(section):
    choice = resolved(section)
    assert (choice.optimizer.name, choice.optimizer.params, choice.learning_rate) == ("AdamW", ADAM, 1e-4)
    flags = {"learning_rate": 3e-4, "adam_beta1": 0.8, "adam_epsilon": 1e-6, "adam_weight_decay": 0.0}
    choice = resolved(section, **flags)
    assert choice.optimizer.params == {"betas": [0.8, 0.999], "eps": 1e-6, "weight_decay": 0.0}
    assert choice.learning_rate == 3e-4
    assert resolved(None, use_8bit_adam=True, **flags).optimizer.params == choice.optimizer.params


def test_what_the_json_says_stands_and_equal_flags_are_no_contradiction():
    params = {"lr": 1e-3, "betas": [0.8, 0.95], "eps": 1e-6, "weight_decay": 0}
    equal = {"learning_rate": 1e-3, "adam_beta2": 0.95, "adam_epsilon": 1e-6, "adam_weight_decay": 0.0}
    for flags in ({}, equal):
        choice = resolved({"type": "AdamW", "params": params}, **flags)
        assert {"lr": choice.learning_rate, **choice.optimizer.params} == params
        assert "optimizer" not in choice.json


@pytest.mark.parametrize(
    ("written", "params", "name"),
    [
        ("Adam", {}, "AdamW"),
        ("adam", {"adam_w_mode": True, "torch_adam": True}, "AdamW"),
        ("Adam", {"adam_w_mode": False}, "Adam"),
        ("AdamW", {"adam_w_mode": False}, "AdamW"),
        ("ADAMW", {"torch_adam": False}, "AdamW"),
    ],
)
def test_adam_is_what_deepspeed_means_by_it(written, params, name):
    choice = resolved({"type": written, "params": params}).optimizer
    assert (choice.name, choice.params) == (name, ADAM)


@pytest.mark.parametrize("name", [name for name in TYPES if "Adam" not in name or name in ("NAdam", "RAdam", "Adamax")])
def test_other_types_keep_their_own_defaults(name):
    assert resolved({"type": name}).optimizer.params == {}
    assert resolved({"type": name, "params": {"weight_decay": "auto"}}).optimizer.params == {}
    filled = resolved({"type": name, "params": {"weight_decay": "auto"}}, adam_weight_decay=0.1).optimizer
    assert filled.params == {"weight_decay": 0.1}
    own = {"momentum": 0.9, "foreach": False}
    choice = resolved({"type": name, "params": {"lr": 0.1, **own}})
    assert (choice.optimizer.name, choice.optimizer.params, choice.learning_rate) == (name, own, 0.1)


@pytest.mark.parametrize(
    ("key", "owned", "flag", "value"),
    [
        ("lr", 0.001, "learning_rate", 0.002),
        ("betas", [0.9, 0.95], "adam_beta1", 0.8),
        ("betas", [0.9, 0.95], "adam_beta2", 0.999),
        ("eps", 1e-06, "adam_epsilon", 1e-08),
        ("weight_decay", 0.0, "adam_weight_decay", 0.1),
    ],
)
def test_a_flag_that_contradicts_the_section_is_refused_by_both_names(key, owned, flag, value):
    with pytest.raises(UserError) as caught:
        resolved({"type": "AdamW", "params": {key: owned}}, **{flag: value})
    assert str(caught.value).startswith(f"--{flag} {value} contradicts optimizer.params.{key} {owned} in the DeepSpeed")
    assert str(caught.value).endswith(f'leave the flag out, or set "{key}": "auto".')


@pytest.mark.parametrize("flag", ["adam_beta1", "adam_beta2", "adam_epsilon", "adam_weight_decay"])
def test_a_flag_without_effect_is_refused(flag):
    words = rf"^--{flag} 0.5 would have no effect, as optimizer.type SGD in the DeepSpeed JSON has its own .*leave the"
    with pytest.raises(UserError, match=words):
        resolved({"type": "SGD", "params": {"lr": 1.0}}, **{flag: 0.5})


@pytest.mark.parametrize("name", TYPES)
def test_eight_bits_and_a_section_contradict_each_other(name):
    words = rf"^--use_8bit_adam contradicts optimizer.type {name} .*; leave the flag out, or remove the section\.$"
    with pytest.raises(UserError, match=words):
        resolved({"type": name}, use_8bit_adam=True)


@pytest.mark.parametrize("name", ["Muon", "Lion", "Lamb", "Adafactor", "OneBitAdam", "LBFGS", "AdamW8bit"])
def test_types_that_do_not_fit_are_refused_by_name_with_reason_and_remedy(name):
    with pytest.raises(UserError) as caught:
        resolved({"type": name})
    reason = REFUSED[name.lower()]
    assert str(caught.value) == f"optimizer.type {name} in the DeepSpeed JSON is refused: {reason}."
    assert "; " in reason


@pytest.mark.parametrize(
    ("section", "words"),
    [
        ({"type": "Adan"}, "^optimizer.type Adan .* it is none of AdamW, Adam, SGD, .*; take one of them"),
        ({"type": 3}, "^optimizer.type 3 in"),
        ({"type": "AdamW", "params": [1]}, r"^optimizer.params \[1\] .*; write an object"),
        ({"type": "AdamW", "legacy_fusion": True}, "^optimizer.legacy_fusion .* no effect; remove it"),
        (
            {"type": "Adam", "params": {"adam_w_mode": "no"}},
            '^optimizer.params.adam_w_mode "no" .*; write true or false',
        ),
        ({"type": "AdamW", "params": {"betas": 0.9}}, "^optimizer.params.betas 0.9 .* takes 2; write as many"),
        (
            {"type": "SGD", "params": {"momentum": "auto"}},
            '^"auto" for optimizer.params.momentum has no rule here; write',
        ),
        *(
            (
                {"type": "SGD", "params": {"lr": rate}},
                "^optimizer.params.lr .* lets nothing be learned; write a number",
            )
            for rate in (0, -1.0, "1e-4", True)
        ),
    ],
)
def test_sections_that_cannot_be_read_are_refused_in_words(section, words):
    with pytest.raises(UserError, match=words):
        resolved(section)
