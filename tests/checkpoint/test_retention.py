"""Retention: what may be deleted, for any steps and any limit."""

import random

from refiner_ds.checkpoint.retention import surplus


def test_without_a_limit_nothing_goes():
    assert surplus([5, 10, 15], None) == []


def test_the_newest_stay_and_the_newest_of_all_in_any_case():
    choose = random.Random(0)
    for _ in range(300):
        steps = choose.sample(range(1000), choose.randint(0, 12))
        limit = choose.randint(-1, 14)
        gone = surplus(steps, limit)
        kept = [step for step in steps if step not in gone]
        assert [*gone, *kept] == steps  # whatever their numbers, what was written first goes first
        assert len(kept) == min(len(steps), max(1, limit))
