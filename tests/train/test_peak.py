"""The peak of a device: sane numbers in the table, and a measurement that is quick and leaves chance alone."""

import time

import pytest
import torch

from refiner_ds.train.peak import HALF, SINGLE, TERAFLOPS, TF32, peak_of

CPU = torch.device("cpu")


@pytest.mark.parametrize("name", TERAFLOPS)
def test_a_gpu_of_the_table_is_the_faster_the_fewer_bits(name):
    peaks = TERAFLOPS[name]
    assert set(peaks) == {HALF, TF32, SINGLE}
    assert 10 < peaks[SINGLE] <= peaks[TF32] < peaks[HALF] < 3000
    assert peaks[HALF] == pytest.approx(2 * peaks[TF32], rel=0.05)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_cpu_is_measured_in_a_moment(dtype):
    state, began = torch.get_rng_state(), time.perf_counter()
    peak = peak_of(CPU, dtype)
    assert time.perf_counter() - began < 2, "0.25 s on a machine that does nothing else"
    assert 1e7 < peak < 1e14
    assert torch.equal(torch.get_rng_state(), state)


def test_no_product_is_much_faster_than_the_peak():
    peak, side = peak_of(CPU, torch.float32), 384
    one = torch.randn(side, side)
    began = time.perf_counter()
    one @ one
    assert 2 * side**3 / (time.perf_counter() - began) < 3 * peak
