"""Ratios are taken within rounds, goals say yes, no or not measured, and tables are whole."""

import pytest

from refiner_ds.bench.contenders import CONTENDERS, chosen
from refiner_ds.bench.goals import GOALS, outcomes, per_cpu_second, ratio
from refiner_ds.bench.job import Figures
from refiner_ds.bench.race import Row
from refiner_ds.bench.report import as_json, as_markdown
from refiner_ds.errors import UserError

ABOUT = {"command": "refiner-ds bench data", "machine": "2 CPU cores", "date": "2026-01-01", "what": "pictures"}


def row(name: str, *rates: float, peak_mb: float = 200.0, state: str = "measured") -> Row:
    (contender,) = (one for one in CONTENDERS if one.name == name)
    figures = [Figures(10, 10 / rate, 10 / rate, peak_mb, shape=(4, 8, 8, 3), dtype="uint8") for rate in rates]
    return Row(contender, state, 2.0, figures)


def test_a_ratio_is_the_median_of_those_within_each_round():
    slow_machine_in_round_two = ratio(row("ours/kept/window", 20, 5, 60), row("baseline", 10, 2, 20))
    assert (slow_machine_in_round_two.median, slow_machine_in_round_two.min, slow_machine_in_round_two.max) == (
        pytest.approx(2.5),
        pytest.approx(2.0),
        pytest.approx(3.0),
    )
    assert ratio(row("ours/kept/window"), row("baseline", 1)) is None


@pytest.mark.parametrize(("rate", "is_kept"), [(19.9, False), (20.1, True)])
def test_a_goal_is_kept_or_not_and_says_what_was_measured(rate, is_kept):
    found = {one.goal.text: one for one in outcomes([row("baseline", 10), row("ours/kept/window", rate)])}
    png = found["PNG bytes kept, window, against the baseline"]
    assert png.is_kept is is_kept and png.measured.median == pytest.approx(rate / 10)
    assert found["loader alone, TIFF, against litdata"].is_kept is None


@pytest.mark.parametrize(("peak_mb", "is_kept"), [(249.0, True), (251.0, False)])
def test_a_goal_of_memory_is_an_upper_limit(peak_mb, is_kept):
    found = {one.goal.text: one for one in outcomes([row("ours/kept/window", 1, peak_mb=peak_mb)])}
    assert found["memory of a worker, PNG"].is_kept is is_kept


def test_every_goal_is_of_rows_that_exist():
    names = {contender.name for contender in CONTENDERS}
    assert len(names) == len(CONTENDERS)
    assert {name for goal in GOALS for name in (goal.row, goal.other) if name} <= names


def test_the_page_tells_every_row_also_those_without_figures_in_whole_tables():
    absent = row("litdata/kept/recipe", state="not installed")
    broken = row("webdataset/kept/recipe", 4, state="failed: RuntimeError: no room")
    rows = [row("baseline", 10, 10), row("ours/kept/window", 25, 30), broken, absent, row("packing/ours/1", 3)]
    page = as_markdown(rows, ABOUT)
    for text in ("not installed", "failed: RuntimeError: no room", "2.75 [2.50..3.00]", "| yes |", "| not measured |"):
        assert text in page
    for table in page.split("\n\n"):
        if table.startswith("|"):
            assert len({line.count("|") for line in table.splitlines()}) == 1
    told = as_json(rows, ABOUT)
    assert [(one["name"], one["state"]) for one in told["rows"]] == [(one.contender.name, one.state) for one in rows]
    assert told["rows"][1]["ratio_to_baseline"] == {"median": 2.75, "min": 2.5, "max": 3.0}
    assert per_cpu_second(rows[1].rounds[0]) == pytest.approx(25)


def test_only_takes_names_and_their_first_parts():
    assert chosen(None) == list(CONTENDERS)
    assert [contender.name for contender in chosen("ours/kept/exact, baseline")] == ["baseline", "ours/kept/exact"]
    assert {contender.name.split("/")[0] for contender in chosen("ours,litdata")} == {"ours", "litdata"}
    with pytest.raises(
        UserError, match=r"--only 'our' names no loader, so nothing would be measured for it; take base"
    ):
        chosen("baseline,our")
