"""The learning rate: shapes by their values, warm-up, and equality with what diffusers, DeepSpeed and torch give."""

import itertools
import typing

import pytest
import torch
from deepspeed.runtime import lr_schedules
from diffusers.optimization import get_scheduler

from refiner_ds.config.scheduler import DEEPSPEED, PEAK, TORCH, ScheduleChoice
from refiner_ds.config.training import SchedulerName
from refiner_ds.errors import UserError
from refiner_ds.train.schedule import Schedule, make_schedule

PEAK_RATE, TOTAL = 2e-4, 40
NAMES = typing.get_args(SchedulerName)


def schedule_of(name: str, peak: float, warmup_steps: int, total_steps: int) -> Schedule:
    """What --lr_scheduler and --lr_warmup_steps make."""
    return make_schedule(ScheduleChoice(name, {"warmup_num_steps": warmup_steps}), peak, total_steps)


def theirs(name: str, warmup_steps: int) -> list[float]:
    """The rates that diffusers' scheduler gives to the updates 0, ..., TOTAL - 1."""
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=PEAK_RATE)
    scheduler = get_scheduler(name, optimizer, num_warmup_steps=warmup_steps, num_training_steps=TOTAL)
    rates = []
    for _ in range(TOTAL):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return rates


@pytest.mark.parametrize(
    ("name", "middle", "end"),
    [
        ("constant", PEAK_RATE, PEAK_RATE),
        ("constant_with_warmup", PEAK_RATE, PEAK_RATE),
        ("linear", PEAK_RATE / 2, 0.0),
        ("cosine", PEAK_RATE / 2, 0.0),
        ("cosine_with_restarts", PEAK_RATE / 2, 0.0),
        ("polynomial", (PEAK_RATE + 1e-7) / 2, 1e-7),
    ],
)
def test_a_shape_starts_at_the_peak_and_comes_to_its_end(name, middle, end):
    rate = schedule_of(name, PEAK_RATE, 0, TOTAL)
    assert [rate(0), rate(TOTAL // 2), rate(TOTAL), rate(10 * TOTAL)] == pytest.approx([PEAK_RATE, middle, end, end])


@pytest.mark.parametrize("name", NAMES)
def test_every_step_without_warm_up_is_that_of_diffusers(name):
    rate = schedule_of(name, PEAK_RATE, 0, TOTAL)
    assert [rate(step) for step in range(TOTAL)] == pytest.approx(theirs(name, 0), rel=1e-12, abs=1e-18)


@pytest.mark.parametrize("name", [name for name in NAMES if name != "constant"])
def test_after_the_warm_up_every_step_is_that_of_diffusers(name):
    rate = schedule_of(name, PEAK_RATE, 8, TOTAL)
    assert [rate(step) for step in range(8, TOTAL)] == pytest.approx(theirs(name, 8)[8:], rel=1e-12, abs=1e-18)


@pytest.mark.parametrize("name", [name for name in NAMES if name != "constant"])
def test_the_warm_up_rises_evenly_to_the_peak_and_wastes_no_update(name):
    rate = schedule_of(name, PEAK_RATE, 8, TOTAL)
    assert [rate(step) for step in range(9)] == pytest.approx([PEAK_RATE * (step + 1) / 9 for step in range(9)])


def test_the_plain_constant_has_no_warm_up():
    rate = schedule_of("constant", PEAK_RATE, 8, TOTAL)
    assert {rate(step) for step in range(TOTAL)} == {PEAK_RATE}


@pytest.mark.parametrize("name", NAMES)
def test_no_rate_is_negative_or_above_the_peak_even_where_the_warm_up_outlasts_the_run(name):
    for warmup in (0, 5, TOTAL, 3 * TOTAL):
        rate = schedule_of(name, PEAK_RATE, warmup, TOTAL)
        assert all(0 <= rate(step) <= PEAK_RATE * (1 + 1e-12) for step in range(5 * TOTAL))


def rates_of(name: str, params: dict, total_steps: int = TOTAL) -> list[float]:
    """What a scheduler section makes of a run."""
    rate = make_schedule(ScheduleChoice(name, params), PEAK_RATE, total_steps)
    return [rate(step) for step in range(total_steps)]


@pytest.mark.parametrize("name", DEEPSPEED)
@pytest.mark.parametrize(("warmup", "kind", "total"), [*itertools.product((1, 5, 29), ("log", "linear"), ("auto", 30))])
def test_update_k_has_the_rate_of_deepspeeds_iteration_k(name, warmup, kind, total):
    said = {"warmup_num_steps": warmup, "warmup_type": kind, "total_num_steps": total}
    said |= {"warmup_min_lr": 1e-5, "warmup_min_ratio": 0.1, "cos_min_ratio": 0.01}
    params = {key: said[key] for key in DEEPSPEED[name] if key != PEAK.get(name)}
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=PEAK_RATE)
    peak = {PEAK[name]: PEAK_RATE} if name in PEAK else {}
    scheduler = getattr(lr_schedules, name)(optimizer, **ScheduleChoice(name, params).over(TOTAL).params, **peak)
    expected = []
    for step in range(TOTAL):
        scheduler.step(step)
        expected.append(scheduler.get_lr()[0])
    assert rates_of(name, params) == pytest.approx(expected, rel=1e-12, abs=1e-18)


def test_without_warm_up_a_deepspeed_schedule_starts_at_its_peak():
    params = {"warmup_min_lr": 0.0, "warmup_num_steps": 0, "warmup_type": "log"}
    assert rates_of("WarmupLR", params) == [PEAK_RATE] * TOTAL
    falling = rates_of("WarmupDecayLR", {**params, "total_num_steps": "auto"})
    assert falling == pytest.approx([PEAK_RATE * (1 - step / TOTAL) for step in range(TOTAL)])


TORCH_PARAMS = {
    "ConstantLR": {"factor": 0.5, "total_iters": 7},
    "LinearLR": {"start_factor": 1.0, "end_factor": 0.0, "total_iters": 30},
    "PolynomialLR": {"power": 2.0, "total_iters": "auto"},
    "ExponentialLR": {"gamma": 0.9},
    "StepLR": {"step_size": 9, "gamma": 0.3},
    "MultiStepLR": {"milestones": [3, 20]},
    "CosineAnnealingLR": {"T_max": "auto", "eta_min": 1e-6},
    "CosineAnnealingWarmRestarts": {"T_0": 6, "T_mult": 2},
    "OneCycleLR": {"total_steps": "auto", "cycle_momentum": False},
    "CyclicLR": {"base_lr": 1e-5, "step_size_up": 4, "cycle_momentum": False},
}


@pytest.mark.parametrize("name", TORCH)
def test_a_scheduler_of_torch_gives_what_torch_gives_from_the_peak_on(name):
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=PEAK_RATE)
    params = {key: TOTAL if value == "auto" else value for key, value in TORCH_PARAMS[name].items()}
    params |= {PEAK[name]: PEAK_RATE} if name in PEAK else {}
    scheduler = getattr(torch.optim.lr_scheduler, name)(optimizer, **params)
    expected = []
    for _ in range(TOTAL):
        expected += scheduler.get_last_lr()
        optimizer.step()
        if len(expected) < TOTAL:
            scheduler.step()
    assert rates_of(name, TORCH_PARAMS[name]) == pytest.approx(expected, rel=1e-12, abs=1e-12)
    assert len(set(expected)) > 1


@pytest.mark.parametrize(
    ("name", "params", "words"),
    [
        (
            "StepLR",
            {"step_siz": 4},
            "scheduler.params.step_siz in the DeepSpeed JSON is no parameter of StepLR; remove",
        ),
        ("StepLR", {"step_size": 0}, "makes no StepLR for 40 steps .*; mend the parameter"),
        ("StepLR", {}, "makes no StepLR for 40 steps .*step_size.*; mend the parameter"),
        ("OneCycleLR", {"total_steps": "auto"}, 'cycles the momentum too, which .*; set "cycle_momentum": false'),
        ("OneCycleLR", {"total_steps": 9, "cycle_momentum": False}, "makes no OneCycleLR for 40 steps .*; mend the"),
        ("ExponentialLR", {"gamma": -0.5}, "comes to the learning rate -.* at step 1, .*; change its params"),
        ("ExponentialLR", {"gamma": 1e99}, "comes to the learning rate inf at step .*; change its params"),
        ("WarmupLR", {"warmup_num_steps": 1.5}, "params.warmup_num_steps 1.5 .* shapes no rate; write a whole number"),
        ("WarmupLR", {"warmup_num_steps": -1}, "params.warmup_num_steps -1 .* shapes no rate; write a whole number"),
        ("WarmupLR", {"warmup_type": "cubic"}, 'params.warmup_type cubic .* shapes no rate; write "log" or "linear"'),
        ("WarmupLR", {"warmup_min_lr": [0.1]}, "params.warmup_min_lr .* shapes no rate; write 0 to the peak"),
        ("WarmupLR", {"warmup_min_lr": 5.0}, "params.warmup_min_lr 5.0 .* shapes no rate; write 0 to the peak"),
        ("WarmupCosineLR", {"cos_min_ratio": 2}, "params.cos_min_ratio 2 .*; write a share of the peak"),
        (
            "WarmupDecayLR",
            {"total_num_steps": 3},
            "warmup_num_steps 1000 .* not below total_num_steps 3: .*write fewer",
        ),
        ("WarmupLR", {"warmup_min_lr": -1.0}, "params.warmup_min_lr -1.0 .* shapes no rate"),
    ],
)
def test_params_that_shape_no_rate_are_refused_in_words(name, params, words):
    defaults = {key: value for key, value in DEEPSPEED.get(name, {}).items() if key != PEAK.get(name)}
    with pytest.raises(UserError, match=words):
        rates_of(name, {**defaults, **params})
