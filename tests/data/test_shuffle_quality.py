"""How well the order shuffles: as well as a full permutation by default, and as the page says."""

from pathlib import Path

import numpy as np
import pytest

from refiner_ds.data.ordering.permutation import shuffled
from refiner_ds.data.shuffle_quality import (
    BATCH,
    FRAMES,
    NEAR,
    SEQUENCE,
    line_of,
    of_ours,
    of_torch,
    of_webdataset,
    ours,
    quality_of,
)

PAGE = Path(__file__).parents[2] / "shards" / "README.md"
SEQUENCES = FRAMES // SEQUENCE
IDEAL = SEQUENCES * (1 - (1 - 1 / SEQUENCES) ** BATCH)
IDEAL_NEAR = (BATCH - 1) * NEAR / FRAMES
PACKED = {"shuffled": shuffled(FRAMES, 0, "pack"), "list": np.arange(FRAMES)}


@pytest.mark.parametrize("packed", PACKED)
def test_the_default_shuffles_like_a_full_permutation(packed):
    quality = quality_of(of_ours(PACKED[packed], window_shards=None))
    torch = quality_of(of_torch())
    assert abs(quality.sequences / IDEAL - 1) < 0.02 and abs(quality.sequences / torch.sequences - 1) < 0.02
    assert abs(quality.near_duplicates - IDEAL_NEAR) < 0.001
    assert abs(quality.apart / torch.apart - 1) < 0.02


@pytest.mark.parametrize(("window_shards", "lanes"), [(1, 1), (4, 1), (16, 1), (4, 8), (None, 16)])
def test_shards_packed_in_shuffled_order_make_any_window_as_good(window_shards, lanes):
    quality = quality_of(of_ours(PACKED["shuffled"], window_shards, lanes))
    assert abs(quality.sequences / IDEAL - 1) < 0.02
    assert abs(quality.near_duplicates - IDEAL_NEAR) < 0.001


def test_judging_knows_the_best_and_the_worst():
    worst = quality_of(np.arange(FRAMES))
    assert worst.sequences < 1.1 and worst.near_duplicates > 0.98 and worst.apart == 1
    strided = quality_of(np.arange(FRAMES).reshape(SEQUENCES, SEQUENCE).T.reshape(-1))
    assert strided.sequences == SEQUENCES and strided.near_duplicates < BATCH / SEQUENCE and strided.apart == SEQUENCES


def test_an_epoch_of_each_draws_every_frame_once():
    for frames in (of_torch(), of_webdataset(PACKED["list"], 100)):
        assert np.array_equal(np.sort(frames), np.arange(FRAMES))
    drawn = of_ours(PACKED["list"], 4, lanes=8)
    assert len(np.unique(drawn)) == len(drawn) == FRAMES // BATCH * BATCH


def test_the_page_says_what_the_command_measures():
    text = PAGE.read_text(encoding="utf-8")
    for name, quality in ours():
        assert line_of(name, quality) in text
