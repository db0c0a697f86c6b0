"""The report: one file that holds all it shows, and tells the truth where a repair did harm."""

import re

import pytest
import torch

from refiner_ds.batch import Batch
from refiner_ds.evaluate.curve import loss_curve, running_mean
from refiner_ds.evaluate.pictures import Album, sheet, side_by_side
from refiner_ds.evaluate.repairs import Judged, Repaired
from refiner_ds.evaluate.report import Training, write_report
from refiner_ds.evaluate.summary import summary
from refiner_ds.refiners.protocol import Sampling


def sample(position, name, gain, width=40):
    picture = torch.randint(0, 256, (1, 3, 24, width), dtype=torch.uint8)
    batch = Batch(picture, 255 - picture, picture, (position,), (name,))
    figures = {"psnr": 18.0, "ssim": 0.5}, {"psnr": 18.0 + gain, "ssim": 0.5 + gain / 10}
    return Repaired(batch, picture, Judged(position, name, *figures, {"harmed": 0.25}, scene="a street"))


@pytest.fixture
def written(tmp_path):
    """`written(samples, training)` gives the report's text."""

    def write(samples, training=None):
        album = Album(tmp_path)
        for each in samples:
            album.keep(each)
        judged = [each.judged for each in samples]
        shown = {"Worst first": [album.shown(each) for each in judged]}
        how = f"{Sampling(20, 10.0, 64)}, seed 0"
        write_report(tmp_path / "report.html", summary(judged), shown, "refiner", how, training or Training())
        return (tmp_path / "report.html").read_text()

    return write


def test_the_report_holds_numbers_pictures_curves_and_settings_and_needs_nothing_else(written):
    metrics = {"train/loss": {1: 0.9, 2: 0.5, 3: 0.4}, "val/psnr": {1: 20, 3: 21}, "val/render_psnr": {1: 18, 3: 18}}
    settings = {"train": {"seed": 7}, "deepspeed": {"zero_optimization": {"stage": 2}}}
    text = written([sample(0, "a<b", 3.0), sample(1, "c", -1.0)], Training(metrics, settings))
    assert "20 steps, guidance 10, tiles of 64 pixels, seed 0" in text
    assert "18.00" in text and "19.00" in text and "+1.00" in text
    assert "<b class='bad'>1</b> of 2 got worse" in text
    assert "which may be chance" in text, "two samples are no proof"
    assert "a&lt;b" in text and "a<b" not in text
    assert text.count("data:image/jpeg;base64,") == 8 and text.count("<polyline") == 4
    assert "zero_optimization.stage" in text and "25.0%" in text and "a street" in text
    assert not re.search(r"(?:src|href)='(?!data:)", text)
    assert "http://" not in text and "https://" not in text


def test_without_a_run_there_are_no_empty_curves(written):
    text = written([sample(0, "a", 1.0)])
    assert "<svg" not in text and "Configuration" not in text and "none got worse" in text


def test_the_curve_spans_its_steps_and_its_mean_looks_back_only():
    assert "step 5" in loss_curve({5: 1.0, 9: 0.5}) and "step 9" in loss_curve({5: 1.0, 9: 0.5})
    assert running_mean([4.0, 2.0, 0.0], 2) == [4.0, 3.0, 1.0]


def test_a_sheet_shows_the_widest_samples_whole(tmp_path):
    samples, album = [sample(0, "a", 1.0), sample(1, "b", 1.0, width=20), sample(2, "c", 1.0)], Album(tmp_path)
    for each in samples:
        album.keep(each)
    assert side_by_side(samples[0]).size == (160, 24)
    assert sheet([album.shown(each.judged) for each in samples]).size == (160, 24 + 4 + 24)
