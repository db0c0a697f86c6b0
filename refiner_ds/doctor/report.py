"""The lines as a table for people, and as JSON for programs."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from refiner_ds.doctor.lines import ALL, Line, State

ORDER: tuple[State, ...] = ("fail", "warn", "ok")
COLOURS = {"ok": "32", "warn": "33", "fail": "31"}
NAMED = 4
"""Hosts that a line names; of more it gives the number."""


def as_table(lines: Sequence[Line], num_hosts: int, has_colour: bool) -> str:
    """A line for each finding, hosts that agree in one; below each that is not green, what to do about it."""
    merged: dict[tuple, list[str]] = {}
    for line in lines:
        merged.setdefault((line.state, line.check, line.text, line.remedy), []).append(line.host)
    rows = [(state, check, _told(names, num_hosts), text, remedy)
            for (state, check, text, remedy), names in merged.items()]  # fmt: skip
    check_width = max((len(row[1]) for row in rows), default=0)
    host_width = max((len(row[2]) for row in rows), default=0)
    out = []
    for state, check, names, text, remedy in rows:
        mark = f"\x1b[{COLOURS[state]}m{state:<4}\x1b[0m" if has_colour else f"{state:<4}"
        out.append(f"{mark}  {check:<{check_width}}  {names:<{host_width}}  {text}")
        if state != "ok" and remedy:
            out.append(f"{'':6}{'':<{check_width}}  {'':<{host_width}}  -> {remedy}")
    counts = {state: sum(line.state == state for line in lines) for state in ORDER}
    where = "1 host" if num_hosts == 1 else f"{num_hosts} hosts"
    out.append(f"{counts['fail']} red, {counts['warn']} yellow, {counts['ok']} green on {where}")
    return "\n".join(out)


def _told(names: Sequence[str], num_hosts: int) -> str:
    if ALL in names or len(names) == num_hosts > 1:
        return "all hosts" if num_hosts > 1 else ""
    return ", ".join(names) if len(names) <= NAMED else f"{len(names)} hosts"


def as_json(lines: Sequence[Line], hosts: Sequence[str]) -> dict[str, Any]:
    """`healthy` is true where no line is red."""
    return {
        "healthy": all(line.state != "fail" for line in lines),
        "hosts": list(hosts),
        "lines": [asdict(line) for line in lines],
    }
