"""The report in headless Chromium: it loads without a fault, its pictures are there, its slider and switch work."""

from pathlib import Path

import pytest

from refiner_ds.evaluate.pictures import Album
from refiner_ds.evaluate.report import Training, write_report
from refiner_ds.evaluate.summary import summary
from tests.evaluate.browser import is_missing, told_by
from tests.evaluate.test_report import sample
from tests.launch.conftest import skip_for

pytestmark = pytest.mark.slow
SEEN = Path(__file__).with_name("seen.js").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    """A report of three samples."""
    folder = tmp_path_factory.mktemp("report")
    album = Album(folder)
    samples = [sample(i, f"a/{i:03d}.png", gain, width=48) for i, gain in enumerate((-1.0, 2.0, 3.0))]
    for each in samples:
        album.keep(each)
    shown = {"Worst first": [album.shown(each.judged) for each in samples]}
    metrics = {"train/loss": {step: 1 / step for step in range(1, 30)}}
    training = Training(metrics, {"train": {"a_long_setting" * 5: "value" * 40}})
    path = folder / "report.html"
    write_report(path, summary([each.judged for each in samples]), shown, "refiners/a", "20 steps", training)
    return path


@pytest.mark.parametrize("width", [1280, 500])
def test_the_report_works_in_a_wide_browser_and_in_a_narrow_one(page, tmp_path, width):
    if is_missing():
        skip_for("Chromium is missing: install Debian's chromium")
    told = told_by(page, SEEN, width, tmp_path)
    assert told["errors"] == []
    said = told["said"]
    assert said["clips"] == [f"inset(0px {hidden}% 0px 0px)" for hidden in (50, 90, 0)]
    assert said["shows_gt"] and said["tag"] == "photograph" and said["is_back"]
    assert said["loaded"] == said["images"] == 12 and said["sliders"] == 3
    assert abs(said["ratio"] - 2) < 0.05 and abs(said["small"] - 2) < 0.05, "pictures keep their shape"
    assert said["width"] == width and said["overhang"] <= 0, "nothing hangs over the side"
