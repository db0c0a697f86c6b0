"""The summary: means, intervals that hold what they promise, groups, and the share that got worse."""

import itertools

import numpy as np
import pytest

from refiner_ds.evaluate.cases import cases
from refiner_ds.evaluate.repairs import Judged
from refiner_ds.evaluate.summary import summary
from refiner_ds.evaluate.text import lines_of


def judged(position, render, repaired, scene="", **regions):
    before, after = ({"psnr": psnr, "ssim": psnr / 40} for psnr in (render, repaired))
    return Judged(position, f"{position:03d}", before, after, regions, scene)


def many(count, seed, scenes=0):
    """Gains of 1 dB in the mean with a deviation of 2; where there are scenes, half of that is the scene's own."""
    chance = np.random.default_rng(seed)
    own = chance.normal(0, 1.4, scenes) if scenes else [0.0]
    gains = [1.0 + own[i % len(own)] + chance.normal(0, 2.0) for i in range(count)]
    return [judged(i, 20.0, 20.0 + gain, f"s{i % scenes}" if scenes else "") for i, gain in enumerate(gains)]


def test_means_and_the_share_of_the_worse_are_those_of_the_samples():
    found = summary([judged(0, 20, 22, harmed=0.1), judged(1, 18, 17, harmed=0.3, healed=0.5), judged(2, 30, 30)])
    assert found.render["psnr"].mean == pytest.approx(68 / 3) and found.gain["psnr"].mean == pytest.approx(1 / 3)
    assert found.worse.mean == pytest.approx(1 / 3), "equal is not worse"
    assert found.regions["harmed"].mean == pytest.approx(0.2) and found.regions["healed"].mean == 0.5
    told = found.as_json()
    assert told["samples"] == 3 and told["repaired"] == pytest.approx({"psnr": 23, "ssim": 23 / 40})
    assert told["intervals"]["over"] == "samples" and len(told["intervals"]["repaired"]["psnr"]) == 2
    assert [group.name for group in found.strengths] == ["severe", "medium", "mild"]
    assert [group.below for group in found.strengths] == [20, 30, None]


def test_one_sample_is_enough_and_the_order_does_not_matter():
    alone = summary([judged(0, 20, 22)])
    assert (alone.gain["psnr"].low, alone.gain["psnr"].high) == (2, 2) and alone.strengths == []
    samples = many(20, 0)
    assert summary(samples) == summary(samples[::-1])


@pytest.mark.parametrize("scenes", [0, 12])
def test_the_interval_holds_the_true_mean_about_as_often_as_it_says(scenes):
    found = [summary(many(60, seed, scenes)).gain["psnr"] for seed in range(150)]
    held = np.mean([estimate.low <= 1.0 <= estimate.high for estimate in found])
    assert 0.85 < held < 0.99, "the bootstrap is a little too sure of few samples"


def test_frames_of_few_scenes_are_not_taken_for_as_many_samples():
    by_scene, by_sample = many(60, 3, scenes=12), [judged(e.position, 20, e.repaired["psnr"]) for e in many(60, 3, 12)]
    assert summary(by_scene).drawn == "scenes" and summary(by_sample).drawn == "samples"
    wide, narrow = (summary(each).gain["psnr"] for each in (by_scene, by_sample))
    assert wide.high - wide.low > 1.1 * (narrow.high - narrow.low)
    assert [group.name for group in summary(by_scene).scenes] == sorted(f"s{i}" for i in range(12))


def test_the_lines_name_every_metric_and_what_got_worse():
    found = summary([judged(0, 20, 22, harmed=0.1, wrong_share=0.2), judged(1, 18, 17, harmed=0.3, wrong_share=0.1)])
    head, psnr, ssim, changes = lines_of(found)
    assert "render" in head and "95% of samples" in head
    assert psnr.split()[:5] == ["PSNR,", "dB", "19.00", "19.50", "+0.50"] and ssim.startswith("SSIM")
    assert changes == "1 of 2 samples have a lower PSNR than before. Where the render was right, 20.0% became wrong."


def test_a_report_shows_the_worst_first_and_no_sample_twice():
    ranked = [judged(i, 20, 20 + i) for i in range(100)]
    found = cases(ranked[::-1])
    assert [each.position for each in found["Worst first"]] == list(range(8))
    assert [each.position for each in found["Best first"]] == list(range(99, 91, -1))
    assert all(8 <= each.position < 92 for each in found["Between"])
    for count in (1, 2, 5, 17, 24, 60):
        shown = [each.position for group in cases(ranked[:count]).values() for each in group]
        assert len(shown) == len(set(shown)) == min(count, 24)
    assert all(a.position < b.position for a, b in itertools.pairwise(found["Between"]))
