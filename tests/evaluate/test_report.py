"""The report: one file that holds all it shows, and tells the truth where a repair did harm."""

import re

import torch

from refiner_ds.batch import Batch
from refiner_ds.evaluate.curve import loss_curve, running_mean
from refiner_ds.evaluate.pictures import sheet, side_by_side
from refiner_ds.evaluate.repairs import Repaired, means
from refiner_ds.evaluate.report import write_report
from refiner_ds.refiners.protocol import Sampling


def _sample(name, gain, width=40):
    picture = torch.randint(0, 256, (1, 3, 24, width), dtype=torch.uint8)
    batch = Batch(picture, picture, picture, (0,), (name,))
    return Repaired(batch, picture, {"psnr": 18.0, "ssim": 0.5}, {"psnr": 18.0 + gain, "ssim": 0.5 + gain / 10})


def test_the_report_holds_numbers_pictures_and_curve_and_needs_nothing_else(tmp_path):
    samples = [_sample("a<b", 3.0), _sample("c", -1.0)]
    path = tmp_path / "report.html"
    write_report(
        path, samples, means(samples), {1: 0.9, 2: 0.5, 3: 0.4}, "refiner", f"{Sampling(20, 10.0, 64)}, seed 0"
    )
    text = path.read_text()
    assert "20 steps, guidance 10, tiles of 64 pixels, seed 0" in text
    assert "18.00" in text and "19.00" in text and "+1.00" in text
    assert "1 of 2 samples have a lower PSNR" in text
    assert "a&lt;b" in text and "a<b" not in text
    assert text.count("data:image/jpeg;base64,") == 8 and text.count("<polyline") == 2
    assert not re.search(r"(?:src|href)='(?!data:)", text)


def test_without_a_curve_there_is_no_empty_one(tmp_path):
    samples = [_sample("a", 1.0)]
    write_report(tmp_path / "report.html", samples, means(samples), {}, "refiner", "as usual")
    assert "<svg" not in (tmp_path / "report.html").read_text()


def test_the_curve_spans_its_steps_and_its_mean_looks_back_only():
    assert "step 5" in loss_curve({5: 1.0, 9: 0.5}) and "step 9" in loss_curve({5: 1.0, 9: 0.5})
    assert running_mean([4.0, 2.0, 0.0], 2) == [4.0, 3.0, 1.0]


def test_a_sheet_shows_the_widest_samples_whole():
    samples = [_sample("a", 1.0), _sample("b", 1.0, width=20), _sample("c", 1.0)]
    assert side_by_side(samples[0]).size == (160, 24)
    assert sheet(samples).size == (160, 24 + 4 + 24)
