"""Hours from a rate: one that is given, or what an earlier run's journal says of one of its ranks."""

import json
from pathlib import Path

import pytest

from refiner_ds.errors import UserError
from refiner_ds.estimate.time import given_rate, hours, measured_rate
from refiner_ds.tracking.journal import Journal


def made_run(folder: Path, rates: list[float], ranks: int = 2) -> Path:
    folder.mkdir()
    (folder / "run.json").write_text(json.dumps({"num_ranks": ranks}))
    journal = Journal(folder)
    for step, rate in enumerate(rates):
        journal.metrics(step, {"train/loss": 1.0, "train/pairs_per_s": rate})
    return folder


def test_hours_are_pairs_over_the_rate_of_all_ranks():
    assert hours(3_600 * 10, given_rate(5.0), 2) == 1.0
    assert hours(3_600 * 10, given_rate(5.0), 1) == 2.0


def test_a_run_is_as_fast_as_its_median_step_on_one_of_its_ranks(tmp_path):
    rate = measured_rate(made_run(tmp_path / "run", [1.0, 8.0, 10.0, 12.0, 0.5], ranks=4))
    assert rate.per_rank == 2.0 and "5 steps on 4 ranks" in rate.source


@pytest.mark.parametrize("rate", [0.0, -1.0, float("nan"), float("inf")])
def test_a_rate_at_which_nothing_is_trained_is_refused(rate):
    with pytest.raises(UserError, match="trains nothing; give a number above 0"):
        given_rate(rate)


def test_a_folder_without_a_run_or_without_a_rate_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"holds no run .*; name the --output_dir"):
        measured_rate(tmp_path)
    with pytest.raises(UserError, match=r"has no train/pairs_per_s .*; wait"):
        measured_rate(made_run(tmp_path / "run", []))
