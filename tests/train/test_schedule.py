"""The learning rate: shapes by their values, warm-up, and equality with the schedules of diffusers' scripts."""

import typing

import pytest
import torch
from diffusers.optimization import get_scheduler

from refiner_ds.config.verbs import Train
from refiner_ds.train.schedule import schedule_of

PEAK, TOTAL = 2e-4, 40
NAMES = typing.get_args(typing.get_type_hints(Train)["lr_scheduler"])


def theirs(name: str, warmup_steps: int) -> list[float]:
    """The rates that diffusers' scheduler gives to the updates 0, ..., TOTAL - 1."""
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=PEAK)
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
        ("constant", PEAK, PEAK),
        ("constant_with_warmup", PEAK, PEAK),
        ("linear", PEAK / 2, 0.0),
        ("cosine", PEAK / 2, 0.0),
        ("cosine_with_restarts", PEAK / 2, 0.0),
        ("polynomial", (PEAK + 1e-7) / 2, 1e-7),
    ],
)
def test_a_shape_starts_at_the_peak_and_comes_to_its_end(name, middle, end):
    rate = schedule_of(name, PEAK, 0, TOTAL)
    assert [rate(0), rate(TOTAL // 2), rate(TOTAL), rate(10 * TOTAL)] == pytest.approx([PEAK, middle, end, end])


@pytest.mark.parametrize("name", NAMES)
def test_every_step_without_warm_up_is_that_of_diffusers(name):
    rate = schedule_of(name, PEAK, 0, TOTAL)
    assert [rate(step) for step in range(TOTAL)] == pytest.approx(theirs(name, 0), rel=1e-12, abs=1e-18)


@pytest.mark.parametrize("name", [name for name in NAMES if name != "constant"])
def test_after_the_warm_up_every_step_is_that_of_diffusers(name):
    rate = schedule_of(name, PEAK, 8, TOTAL)
    assert [rate(step) for step in range(8, TOTAL)] == pytest.approx(theirs(name, 8)[8:], rel=1e-12, abs=1e-18)


@pytest.mark.parametrize("name", [name for name in NAMES if name != "constant"])
def test_the_warm_up_rises_evenly_to_the_peak_and_wastes_no_update(name):
    rate = schedule_of(name, PEAK, 8, TOTAL)
    assert [rate(step) for step in range(9)] == pytest.approx([PEAK * (step + 1) / 9 for step in range(9)])


def test_the_plain_constant_has_no_warm_up():
    rate = schedule_of("constant", PEAK, 8, TOTAL)
    assert {rate(step) for step in range(TOTAL)} == {PEAK}


@pytest.mark.parametrize("name", NAMES)
def test_no_rate_is_negative_or_above_the_peak_even_where_the_warm_up_outlasts_the_run(name):
    for warmup in (0, 5, TOTAL, 3 * TOTAL):
        rate = schedule_of(name, PEAK, warmup, TOTAL)
        assert all(0 <= rate(step) <= PEAK * (1 + 1e-12) for step in range(5 * TOTAL))
