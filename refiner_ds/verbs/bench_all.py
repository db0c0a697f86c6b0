"""`refiner-ds bench all`: all benches but exchange one after the other, each its own process, and one page of them."""

import os
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

from refiner_ds.config.known import flags_of
from refiner_ds.config.verbs import benches
from refiner_ds.config.verbs.benches import BenchAll
from refiner_ds.errors import UserError
from refiner_ds.folders import require_free

PAGE = "BENCHMARKS.md"


class Bench(NamedTuple):
    """One of them: its options, and what its part of the page is called."""

    options: type
    title: str


BENCHES = {
    "step": Bench(benches.BenchStep, "Training step"),
    "data": Bench(benches.BenchData, "Data path"),
    "encode": Bench(benches.BenchEncode, "Frozen encoders"),
    "repair": Bench(benches.BenchRepair, "Repair"),
    "checkpoint": Bench(benches.BenchCheckpoint, "Checkpoints"),
}
"""By their names behind `refiner-ds bench`, in the order in which they run."""


def run(options: BenchAll) -> int:
    """0 where all benches ended well; 1 where one failed, which is told once the others have run."""
    names = _chosen(options.only)
    if options.rounds is not None and options.rounds < 1:
        raise UserError(f"--rounds {options.rounds} measures nothing; give at least 1.")
    require_free(options.output, "the figures of two runs would be mixed")
    options.output.mkdir(parents=True, exist_ok=True)
    failures: dict[str, str] = {}
    for name in names:
        started = time.monotonic()
        print(f"=== bench {name}", file=sys.stderr, flush=True)
        if failure := _run(name, options):
            failures[name] = failure
        print(f"{'failed' if failure else 'done'} in {time.monotonic() - started:.0f} s", file=sys.stderr, flush=True)
        # after each: where the machine's time ends before all have run, what there is has its page
        (options.output / PAGE).write_text(_page(names, options.output, failures), encoding="utf-8")
    print((options.output / PAGE).read_text(encoding="utf-8"), end="")
    for name, failure in failures.items():
        print(f"bench {name} failed: {failure}", file=sys.stderr)
    return 1 if failures else 0


def _chosen(only: str | None) -> list[str]:
    """The names that --only gives, in their order of running.

    Raises:
        UserError: one is no bench.
    """
    given = [*BENCHES] if only is None else [name.strip() for name in only.split(",")]
    for name in given:
        if name not in BENCHES:
            raise UserError(
                f"--only '{name}' names no bench, so nothing would be measured for it; take {', '.join(BENCHES)}."
            )
    return [name for name in BENCHES if name in given]


def _run(name: str, options: BenchAll) -> str:
    """Runs a bench to its end; what it said last where it failed, else nothing."""
    place = options.output / name
    words = ["--json", place.with_suffix(".json"), "--markdown", place.with_suffix(".md")]
    if options.rounds is not None:
        words += ["--rounds", options.rounds]
    if "device" in flags_of(BENCHES[name].options):
        words += ["--device", options.device]
    log = place.with_suffix(".log")
    command = [sys.executable, "-m", "refiner_ds", "bench", name, *map(str, words)]
    unbuffered = {**os.environ, "PYTHONUNBUFFERED": "1"}  # so that what it said last stands last
    with log.open("w") as said:
        done = subprocess.run(command, env=unbuffered, stdin=subprocess.DEVNULL, stdout=said, stderr=said, check=False)
    if not done.returncode:
        return ""
    lines = log.read_text(encoding="utf-8", errors="replace").split("\n")
    last = next((line for line in reversed(lines) if line.strip()), "it said nothing")
    return f"exit status {done.returncode}, {last.strip()}"


def _page(names: list[str], folder: Path, failures: dict[str, str]) -> str:
    """The pages of all benches that have ended, each under its title."""
    parts = ["# Benchmarks\n"]
    for name in names:
        page, failure = folder / f"{name}.md", failures.get(name)
        if page.exists() or failure:
            parts.append(f"## {BENCHES[name].title}\n")
        if page.exists():
            parts.append(page.read_text(encoding="utf-8"))
        if failure:
            parts.append(f"`refiner-ds bench {name}` failed: {failure}\n")
    return "\n".join(parts)
