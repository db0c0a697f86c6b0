"""`refiner-ds bench all`: a page of all benches, the failure of one told at the end, and one real run."""

import json
import subprocess
from pathlib import Path

import pytest

from refiner_ds.cli import VERBS, main
from refiner_ds.verbs import bench_all


@pytest.fixture
def started(monkeypatch):
    """The commands that are started; each writes its files as a bench does, but `data`, which fails."""
    commands = []

    def run(command, stdout, **_):
        words = command[3:]
        commands.append(words)
        name, page = words[1], Path(words[words.index("--markdown") + 1])
        stdout.write(f"bench {name} says this\nand this last\n\n")
        if name != "data":
            page.write_text(f"page of {name}\n")
            Path(words[words.index("--json") + 1]).write_text("{}")
        return subprocess.CompletedProcess(command, 3 * (name == "data"))

    monkeypatch.setattr(bench_all.subprocess, "run", run)
    return commands


def test_the_failure_of_one_is_told_at_the_end_and_the_others_still_run(started, tmp_path, capsys):
    out = tmp_path / "all" / "of it"
    assert main(["bench", "all", "--output", str(out)]) == 1
    assert [words[:2] for words in started] == [["bench", name] for name in bench_all.BENCHES]
    told = capsys.readouterr()
    assert told.err.splitlines()[-1] == "bench data failed: exit status 3, and this last"
    page = (out / "BENCHMARKS.md").read_text()
    assert told.out == page
    assert [line for line in page.splitlines() if line] == [
        *("# Benchmarks", "## Training step", "page of step", "## Data path"),
        *("`refiner-ds bench data` failed: exit status 3, and this last", "## Frozen encoders", "page of encode"),
        *("## Repair", "page of repair", "## Checkpoints", "page of checkpoint"),
    ]
    left = {path.name for path in out.iterdir()}
    assert left == {"BENCHMARKS.md", "data.log"} | {
        f"{name}.{kind}" for name in bench_all.BENCHES if name != "data" for kind in ("md", "json", "log")
    }


def test_options_reach_the_benches_that_have_them(started, tmp_path):
    given = ["--only", "checkpoint, encode", "--rounds", "2", "--device", "cpu", "--output", str(tmp_path / "out")]
    assert main(["bench", "all", *given]) == 0
    encode, checkpoint = started
    assert encode[1] == "encode" and encode[-4:] == ["--rounds", "2", "--device", "cpu"]
    assert checkpoint[1] == "checkpoint" and checkpoint[-2:] == ["--rounds", "2"] and "--device" not in checkpoint


def test_each_of_them_is_a_verb():
    for name, bench in bench_all.BENCHES.items():
        assert VERBS[f"bench {name}"][0] is bench.options


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--only", "step,steps"], "--only 'steps' names no bench, so nothing would be measured for it; take step, "),
        (["--only", ""], "--only '' names no bench"),
        (["--rounds", "0"], "--rounds 0 measures nothing; give at least 1."),
        (["--output", "."], "output folder . is not empty, and the figures of two runs would be mixed; name another"),
    ],
)
def test_what_cannot_be_run_is_refused_in_one_sentence(started, capsys, monkeypatch, tmp_path, arguments, words):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "taken").write_text("a file")
    assert main(["bench", "all", "--output", "out", *arguments]) == 2
    told = capsys.readouterr().err.strip()
    assert words in told and len(told.splitlines()) == 1 and told.endswith(".")
    assert not started and [path.name for path in tmp_path.iterdir()] == ["taken"]


@pytest.mark.slow
@pytest.mark.long
def test_a_real_bench_leaves_its_page_and_figures(refiner_ds_command, tmp_path):
    out = tmp_path / "out"
    given = ("--only", "encode", "--rounds", 1, "--device", "cpu", "--output", out)
    done = refiner_ds_command("bench", "all", *given, timeout=400, CUDA_VISIBLE_DEVICES="")
    assert done.returncode == 0, done.stderr
    page = (out / "BENCHMARKS.md").read_text()
    assert done.stdout == page
    assert (out / "encode.md").read_text() in page
    assert json.loads((out / "encode.json").read_text())["about"]["rounds"] == 1
