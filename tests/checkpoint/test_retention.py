"""Retention: what may be deleted, for any history of checkpoints and any wish."""

import random

from refiner_ds.checkpoint.retention import Keep, best_of, surplus

SEEDS = range(300)


def history(choose: random.Random) -> tuple[list[int], dict[int, float]]:
    """Steps in any order of writing, and figures of some of them, of steps without a checkpoint, and some that are
    none."""
    steps = choose.sample(range(0, 200, 5), choose.randint(0, 12))
    judged = [*steps, *choose.sample(range(1, 200, 5), 3)]
    figures = {step: choose.choice([choose.random(), 0.5, float("nan")]) for step in judged if choose.random() < 0.7}
    return steps, figures


def wish(choose: random.Random) -> Keep:
    return Keep(choose.randint(1, 14), choose.randint(0, 4), choose.choice([0, 5, 10, 35]), choose.random() < 0.5)


def test_what_has_to_stay_stays_and_no_more_than_that():
    for choose in map(random.Random, SEEDS):
        (steps, figures), keep = history(choose), wish(choose)
        in_use = set(choose.sample(steps, min(len(steps), choose.randint(0, 2))))
        gone = surplus(steps, keep, figures, in_use)
        stay = [step for step in steps if step not in gone]
        assert gone == [step for step in steps if step in gone], "in the order of writing"

        best = best_of(steps, figures, keep.best, keep.largest_is_best)
        for_ever = [step for step in steps if keep.every and step % keep.every == 0]
        assert {*steps[-keep.last :], *best, *for_ever, *in_use} == {*stay}
        assert len(stay) <= keep.last + keep.best + len(for_ever) + len(in_use)


def test_what_was_written_last_never_goes_whatever_is_asked():
    for choose in map(random.Random, SEEDS):
        steps, figures = history(choose)
        keep = Keep(choose.randint(-3, 2), choose.randint(0, 2), choose.choice([0, 35]), choose.random() < 0.5)
        assert not steps or steps[-1] not in surplus(steps, keep, figures)


def test_no_other_is_better_than_the_best_and_those_are_as_many_as_asked():
    for choose in map(random.Random, SEEDS):
        steps, figures = history(choose)
        count, largest = choose.randint(0, 4), choose.random() < 0.5
        found = best_of(steps, figures, count, largest)
        judged = {step: figures[step] for step in steps if step in figures and figures[step] == figures[step]}
        assert len(found) == min(count, len(judged)) and {*found} <= judged.keys()
        for step in judged.keys() - {*found}:
            for better in found:
                difference = judged[better] - judged[step]
                assert (difference if largest else -difference) > 0 or (difference == 0 and better > step)


def test_a_run_that_tidies_after_each_save_never_loses_a_best_or_the_newest():
    for choose in map(random.Random, SEEDS):
        keep, kept, figures = wish(choose), [], {}
        for step in range(5, 200, 5):
            kept = [*(other for other in kept if other != step), step]
            figures[step] = choose.random()
            for gone in surplus(kept, keep, figures):
                kept.remove(gone)
            assert kept[-1] == step
            assert {*best_of(figures, figures, keep.best, keep.largest_is_best)} <= {*kept}


def test_without_a_limit_nothing_goes():
    assert surplus([5, 10, 15], Keep()) == []
    assert surplus([5, 10, 15], Keep(None, best=1, every=10), {5: 1.0}) == []


def test_of_equal_figures_the_later_step_is_the_better_one():
    assert best_of([10, 20, 30], {10: 1.0, 20: 1.0, 30: 0.5}, 2, largest_is_best=True) == [20, 10]
    assert best_of([10, 20, 30], {10: 1.0, 20: 0.5, 30: 0.5}, 1, largest_is_best=False) == [30]
