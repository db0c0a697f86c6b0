"""`refiner-ds bench checkpoint`: what counts as standing still, ratios within rounds, the goal, and a tiny run."""

import json
import time

import pytest

from refiner_ds.bench.saving import STEPS_ALONE, Saved, at_once, in_background, measured, no_save, waited_for
from refiner_ds.bench.saving_report import BACKGROUND, DEEPSPEED, NO_SAVE, WAITED, as_json, as_markdown, ratio_of
from refiner_ds.cli import main

ABOUT = {"command": "refiner-ds bench checkpoint", "machine": "2 CPU cores", "date": "2026-01-01", "what": "weights"}
SIZES = {BACKGROUND: 12_000_000, WAITED: 12_000_000}


class Save:
    """A save that takes 0.05 s to begin, is written while so many steps are made, and takes 0.02 s to finish."""

    def __init__(self, steps: int) -> None:
        self.steps, self.calls = steps, []

    def begin(self) -> None:
        time.sleep(0.05)
        self.calls.append("begin")

    @property
    def is_writing(self) -> bool:
        return self.calls.count("step") < self.steps

    def step(self) -> None:
        time.sleep(0.1)
        self.calls.append("step")

    def finish(self) -> None:
        time.sleep(0.02)
        self.calls.append("finish")


@pytest.mark.parametrize(("steps", "made"), [(0, 1), (1, 1), (3, 3)])
def test_steps_beside_a_save_are_no_stall(steps, made):
    save = Save(steps)
    found = in_background(save, save.step)
    assert save.calls == ["begin", *["step"] * made, "finish"]
    assert found.steps == made and 0.07 <= found.stall_seconds < 0.1 <= found.step_seconds


def test_what_is_waited_for_is_all_stall_and_what_is_no_save_is_none():
    save = Save(3)
    found = waited_for(save)
    assert save.calls == ["begin", "finish"] and found.stall_seconds >= 0.07 and found.steps == 0
    assert at_once(save.begin).stall_seconds >= 0.05
    alone = no_save(lambda: None)
    assert (alone.stall_seconds, alone.steps) == (0.0, STEPS_ALONE)


def test_ways_take_turns_and_what_one_leaves_is_settled_before_the_next():
    calls = []
    ways = {name: lambda name=name: calls.append(name) or Saved(1.0) for name in ("a", "b")}
    found = measured(ways, 3, lambda: calls.append("settle"), lambda *_: None)
    assert calls[1::2] == ["a", "b", "b", "a", "a", "b"] and set(calls[::2]) == {"settle"}
    assert {name: len(rounds) for name, rounds in found.items()} == {"a": 3, "b": 3}


def figures(*stalls: float) -> dict[str, list[Saved]]:
    """Of rounds in which a save that is waited for takes 1, 10, 100, ... s."""
    return {
        NO_SAVE: [Saved(0.0, 5, 0.5) for _ in stalls],
        BACKGROUND: [Saved(stall * 10**number, 4, 0.6) for number, stall in enumerate(stalls)],
        WAITED: [Saved(10.0**number) for number in range(len(stalls))],
    }


def test_a_ratio_is_of_the_same_round():
    ratio = ratio_of(figures(0.1, 0.2, 0.4), BACKGROUND)
    assert (ratio.median, ratio.min, ratio.max) == pytest.approx((0.2, 0.1, 0.4))


@pytest.mark.parametrize(("stall", "kept"), [(0.19, True), (0.21, False)])
def test_the_goal_is_a_fifth_of_the_save_that_is_waited_for(stall, kept):
    found = figures(0.01, stall, 0.9)
    assert as_json(found, SIZES, ABOUT)["goal"]["is_kept"] is kept
    assert f"| {'yes' if kept else 'no'} |" in as_markdown(found, SIZES, ABOUT)


def test_the_page_has_a_whole_line_for_each_way():
    head, _, *lines = as_markdown(figures(0.1), SIZES, ABOUT).split("\n\n")[2].splitlines()
    assert {line.count("|") for line in (head, *lines)} == {7}
    assert lines[0] == f"| {NO_SAVE} | - | - | - | 0.50 [0.50..0.50] | - |"
    assert lines[1].startswith(f"| {BACKGROUND} | 0.10 [0.10..0.10] | 0.10 [0.10..0.10] | 4 | 0.60")
    assert lines[2] == f"| {WAITED} | 1.00 [1.00..1.00] | - | - | - | 12 |"


@pytest.mark.slow
def test_a_tiny_run_measures_all_ways_and_leaves_nothing_behind(refiner_ds_command, tmp_path):
    files = ("--json", tmp_path / "f.json", "--markdown", tmp_path / "f.md", "--output", tmp_path / "disk")
    done = refiner_ds_command("bench", "checkpoint", "--parameters", 3000, "--rounds", 1, *files, timeout=240)
    assert done.returncode == 0, done.stderr
    told, page = json.loads((tmp_path / "f.json").read_text()), (tmp_path / "f.md").read_text()
    assert [way["name"] for way in told["ways"]] == [NO_SAVE, BACKGROUND, WAITED, DEEPSPEED]
    assert all(way["rounds"][0]["stall_seconds"] > 0 for way in told["ways"][1:])
    # 3072 weights: fp32 masters and two moments, and names
    assert 12 * 3072 < told["ways"][1]["bytes"] < 16 * 3072 and "3,072 weights, AdamW, ZeRO-2" in page
    assert done.stdout == page and "`refiner-ds bench checkpoint --parameters 3000 --rounds 1`" in page
    assert list((tmp_path / "disk").iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--rounds", "0"], "--rounds 0 must be at least 1; else nothing is saved."),
        (["--parameters", "0"], "--parameters 0 and --rounds 5 must be at least 1"),
        (
            ["--parameters", "9" * 15],
            "of disk and",
        ),
        (["--output", "."], "output folder . is not empty, and the bench would mix its files with them"),
    ],
)
def test_what_cannot_be_measured_is_refused_in_one_sentence(capsys, monkeypatch, tmp_path, arguments, words):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "taken").write_text("a file")
    assert main(["bench", "checkpoint", *arguments]) == 2
    told = capsys.readouterr().err.strip()
    assert words in told and len(told.splitlines()) == 1 and told.endswith(".")
    assert [path.name for path in tmp_path.iterdir()] == ["taken"]
