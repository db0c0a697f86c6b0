"""What a rank does: arithmetic counted once per shape, its own time, the time it waits, its memory."""

import time
from itertools import count, islice

import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from refiner_ds.train.high_water import high_water
from refiner_ds.train.peak import peak_of
from refiner_ds.train.stopwatch import Stopwatch
from refiner_ds.train.waiting import Waiting
from refiner_ds.train.work import Work

CPU = torch.device("cpu")


def micro_batch(work, layer, shape):
    with work.forth(shape):
        loss = layer(torch.randn(shape)).square().sum()
    with work.back():
        loss.backward()


def test_every_micro_batch_counts_and_all_but_the_first_of_a_shape_are_timed():
    work, layer = Work(CPU), nn.Linear(4, 5)
    one, two = 2 * 2 * (2 * 4 * 5), 2 * 2 * (3 * 4 * 5)
    micro_batch(work, layer, (2, 4))
    micro_batch(work, layer, (3, 4))
    assert work.take() == (one + two, None)
    for shape in ((2, 4), (3, 4), (2, 4)):
        micro_batch(work, layer, shape)
    flops, seconds = work.take()
    assert flops == 2 * one + two and 0 < seconds < 1
    assert work.take() == (0, None)


def test_a_micro_batch_that_fails_is_counted_the_next_time():
    work, layer = Work(CPU), nn.Linear(4, 5)
    with pytest.raises(RuntimeError, match="shapes"), work.forth((2, 3)):
        layer(torch.randn(2, 3))
    micro_batch(work, layer, (2, 4))
    assert work.take() == (2 * 2 * (2 * 4 * 5), None)


def test_a_stopwatch_gives_the_mean_of_what_it_timed():
    stopwatch = Stopwatch(CPU)
    for seconds in (0.01, 0.03):
        with stopwatch:
            time.sleep(seconds)
        time.sleep(0.05)  # not timed
    assert stopwatch.take() == pytest.approx(0.02, abs=0.015)
    assert stopwatch.take() is None


def test_waiting_hands_on_the_items_and_knows_how_long_they_took():
    def slow():
        for number in count():
            time.sleep(0.01)
            yield number

    waiting = Waiting(slow())
    assert [next(waiting) for _ in range(3)] == [0, 1, 2]
    time.sleep(0.1)  # the trainer's own time
    assert waiting.take() == pytest.approx(0.03, abs=0.02)
    assert waiting.take() == 0
    assert list(islice(waiting, 2)) == [3, 4]
    ended = Waiting(iter(()))
    with pytest.raises(StopIteration):
        next(ended)


def test_the_high_water_mark_rises_and_never_falls():
    before = high_water(CPU)
    taken = torch.ones(before, dtype=torch.uint8)
    full = high_water(CPU)
    assert full > before + len(taken) / 2
    del taken
    assert high_water(CPU) == pytest.approx(full, rel=0.01), "the system counts in batches of pages"


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_gpu_is_counted_on_both_ways_and_timed_in_its_stream():
    gpu, found = torch.device("cuda"), []
    layers = nn.Sequential(nn.Conv2d(3, 8, 3), nn.SiLU(), nn.Conv2d(8, 5, 3)).to(gpu)
    work = Work(gpu)
    for _ in range(2):
        with work.forth((2, 3, 16, 16)):
            loss = checkpoint(layers, torch.randn(2, 3, 16, 16, device=gpu), use_reentrant=False).square().sum()
        with work.back():
            loss.backward()
        found.append(work.take())
    first, second = 2 * 2 * 14**2 * 9 * 3 * 8, 2 * 2 * 12**2 * 9 * 8 * 5
    assert [flops for flops, _ in found] == [2 * first + 3 * second] * 2  # no gradients of the input
    assert found[0][1] is None and 0 < found[1][1] < 1
    assert high_water(gpu) > 0 and peak_of(gpu, torch.bfloat16) > 1e12
