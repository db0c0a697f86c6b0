"""Keyed randomness: a key may never change, or runs that were begun could not be continued."""

import os
import subprocess
import sys

import numpy as np

from refiner_ds.chance import generator_of, key_of

KEYS = {
    (0, "order"): 3744741786310882764,
    (0, "crop", 0): 8769769166630925900,
    (1, "crop", 0): 8152304390524517100,
    (0, "crop", 1, 2): 5048099501208722613,
    (0, "crop", 12): 4958508364175302853,
    (123456789, "noise", 10**12): 151533707830591375,
}
PERMUTATION = [2, 0, 4, 5, 8, 7, 9, 3, 6, 1]


def test_keys_are_the_ones_that_runs_were_begun_with():
    assert {arguments: key_of(*arguments) for arguments in KEYS} == KEYS


def test_draws_are_the_ones_that_runs_were_begun_with():
    assert generator_of(7, "crop", 5).integers(0, 1406, 6).tolist() == [222, 728, 428, 133, 792, 15]
    assert generator_of(7, "order", 0, 1).permutation(10).tolist() == PERMUTATION
    assert np.allclose(generator_of(7, "t").random(2), [0.4665144776650606, 0.5807238590700632], rtol=0, atol=1e-15)
    assert np.allclose(generator_of(7, "n").standard_normal(2), [0.21542200608838044, 0.90321407558493], atol=1e-14)


def test_another_process_draws_the_same():
    program = (
        "from refiner_ds.chance import generator_of, key_of\n"
        "print(key_of(0, 'crop', 1, 2), generator_of(7, 'order', 0, 1).permutation(10).tolist())"
    )
    environment = {**os.environ, "PYTHONHASHSEED": "4711"}
    found = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True)
    assert found.stdout.strip() == f"{KEYS[0, 'crop', 1, 2]} {PERMUTATION}"


def test_seed_purpose_and_numbers_each_make_another_key():
    keys = {
        key_of(seed, purpose, *numbers)
        for seed in range(20)
        for purpose in ("crop", "noise", "order")
        for numbers in [(), *((n,) for n in range(40)), *((n, m) for n in range(12) for m in range(12))]
    }
    assert len(keys) == 20 * 3 * (1 + 40 + 144)
    assert all(0 <= key < 2**63 for key in keys)


def test_draws_of_neighbouring_keys_are_independent():
    draws = np.array([generator_of(0, "crop", position).random(4) for position in range(4000)])
    assert abs(draws.mean() - 0.5) < 0.02
    assert np.abs(np.corrcoef(draws[:-1].T, draws[1:].T) - np.eye(8)).max() < 0.08
    assert np.histogram(draws[:, 0], 10, (0, 1))[0].min() > 320
