"""The schedule: the JSON's section owns it, flags fill what it leaves open, and a run has one peak rate."""

from pathlib import Path

import pytest

from refiner_ds.config.deepspeed import resolve
from refiner_ds.config.scheduler import DEEPSPEED, PEAK, REFUSED, TORCH
from refiner_ds.config.training import Train
from refiner_ds.errors import UserError


def resolved(section: object, optimizer: object = None, **given: object):
    """What comes of a scheduler section (None for none), an optimizer section and flags."""
    sections = {"scheduler": section, "optimizer": optimizer}
    config = {"zero_optimization": {"stage": 2}, **{name: value for name, value in sections.items() if value}}
    return resolve(config, Train("shards", "base", Path("run"), **given), 1)  # type: ignore[arg-type]


def test_without_a_section_the_flags_say_it_all():
    for flags, name, warmup in (({}, "constant", 0), ({"lr_scheduler": "cosine", "lr_warmup_steps": 9}, "cosine", 9)):
        choice = resolved(None, **flags).schedule
        assert (choice.name, choice.params) == (name, {"warmup_num_steps": warmup})


@pytest.mark.parametrize("name", DEEPSPEED)
def test_flags_fill_what_a_section_of_deepspeed_leaves_open(name):
    choice = resolved({"type": name, "params": {"warmup_num_steps": "auto"}}, lr_warmup_steps=9, learning_rate=3e-4)
    assert choice.schedule.params == {
        **{key: value for key, value in DEEPSPEED[name].items() if key != PEAK.get(name)},
        "warmup_num_steps": 9,
    }
    assert choice.learning_rate == 3e-4 and "scheduler" not in choice.json
    assert "auto" not in choice.schedule.over(50).params.values()
    assert choice.schedule.over(50).params.get("total_num_steps", 50) == 50


def test_open_warm_up_is_none_without_a_flag_and_an_absent_one_is_deepspeeds():
    auto = resolved(
        {"type": "WarmupLR", "params": dict.fromkeys(DEEPSPEED["WarmupLR"], "auto") | {"warmup_type": "log"}}
    )
    assert auto.schedule.params == {"warmup_min_lr": 0.0, "warmup_num_steps": 0, "warmup_type": "log"}
    assert resolved({"type": "WarmupLR"}).schedule.params["warmup_num_steps"] == 1000


@pytest.mark.parametrize("name", TORCH)
def test_a_section_of_torch_keeps_its_params(name):
    total = {"total_iters": "auto"}
    choice = resolved({"type": name.upper(), "params": {**total, "gamma": 0.5}})
    assert (choice.schedule.name, choice.schedule.params) == (name, {**total, "gamma": 0.5})
    assert choice.schedule.over(50).params == {"total_iters": 50, "gamma": 0.5}


@pytest.mark.parametrize(("name", "key"), PEAK.items())
def test_the_peak_of_a_section_is_the_learning_rate(name, key):
    section = {"type": name, "params": {key: 0.002}}
    for flags in ({}, {"learning_rate": 0.002}):
        assert resolved(section, {"type": "SGD", "params": {"lr": "auto"}}, **flags).learning_rate == 0.002
    words = (
        rf'--learning_rate 0.001 contradicts scheduler.params.{key} 0.002 .*leave the flag out, or set "{key}": "auto"'
    )
    with pytest.raises(UserError, match=words):
        resolved(section, learning_rate=0.001)
    words = rf"optimizer.params.lr 0.001 contradicts scheduler.params.{key} 0.002 .*; set one of the two to \"auto\"\.$"
    with pytest.raises(UserError, match=words):
        resolved(section, {"type": "AdamW", "params": {"lr": 0.001}})
    with pytest.raises(UserError, match=rf"scheduler.params.{key} 0 lets nothing be learned"):
        resolved({"type": name, "params": {key: 0}})


@pytest.mark.parametrize("name", [*DEEPSPEED, *TORCH])
def test_flags_that_contradict_a_section_or_would_have_no_effect_are_refused_by_both_names(name):
    words = (
        rf"^--lr_scheduler cosine contradicts scheduler.type {name} .*; leave the flag out, or remove the section\.$"
    )
    with pytest.raises(UserError, match=words):
        resolved({"type": name}, lr_scheduler="cosine")
    words = (
        r'^--lr_warmup_steps 9 contradicts scheduler.params.warmup_num_steps 1000 .* set "warmup_num_steps": "auto"\.$'
        if name in DEEPSPEED
        else rf"^--lr_warmup_steps 9 would have no effect, as scheduler.type {name} .*; leave the flag out, or remove"
    )
    with pytest.raises(UserError, match=words):
        resolved({"type": name}, lr_warmup_steps=9)


@pytest.mark.parametrize("name", ["ReduceLROnPlateau", "OneCycle", "LRRangeTest", "LambdaLR", "SequentialLR"])
def test_types_that_are_no_function_of_the_step_are_refused_by_name_with_reason_and_remedy(name):
    with pytest.raises(UserError) as caught:
        resolved({"type": name})
    reason = REFUSED[name.lower()]
    assert str(caught.value) == f"scheduler.type {name} in the DeepSpeed JSON is refused: {reason}."
    assert "; take " in reason


@pytest.mark.parametrize(
    ("section", "words"),
    [
        ({"type": "Warmup"}, "^scheduler.type Warmup .* it is none of WarmupLR, .*; take one of them"),
        ({"type": "WarmupLR", "params": {"total_num_steps": 9}}, "^scheduler.params.total_num_steps .*WarmupLR takes"),
        (
            {"type": "StepLR", "params": {"step_size": "auto"}},
            '^"auto" for scheduler.params.step_size has no rule here',
        ),
    ],
)
def test_sections_that_cannot_be_read_are_refused_in_words(section, words):
    with pytest.raises(UserError, match=words):
        resolved(section)


@pytest.mark.parametrize("shape", [None, "constant"])
def test_a_warm_up_of_the_constant_shape_is_refused(shape):
    with pytest.raises(UserError, match=r"--lr_warmup_steps 9 would have no effect, .*; take constant_with_warmup"):
        resolved(None, lr_warmup_steps=9, lr_scheduler=shape)
    assert resolved(None, lr_warmup_steps=0, lr_scheduler=shape).schedule.name == "constant"
