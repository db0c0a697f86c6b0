"""A line of the doctor's table: what was looked at, on which host, how it stands, and what to do about it."""

from collections.abc import Callable, Hashable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

State = Literal["ok", "warn", "fail"]
ALL = "all"
"""In place of a host: what is so of the job as a whole."""


@dataclass(frozen=True)
class Line:
    """One finding. A red one ("fail") has a remedy, and a job started all the same would end or go wrong."""

    check: str
    host: str
    state: State
    text: str
    remedy: str = ""


def from_sentence(check: str, host: str, sentence: str, state: State = "fail") -> Line:
    """A line of one of our own sentences, whose remedy stands after its last semicolon."""
    text, _, remedy = sentence.rstrip(".").rpartition("; ")
    return Line(check, host, state, text or remedy, remedy if text else "mend that on the host, and ask again")


def differences(
    check: str, said: Mapping[str, Any], tell: Callable[[Any], Hashable], remedy: str, state: State = "fail"
) -> Iterator[Line]:
    """A line for each host that says otherwise than the first one."""
    if not said:
        return
    first, *others = said
    for host in others:
        if tell(said[host]) != tell(said[first]):
            yield Line(check, host, state, f"{tell(said[host])}, and {first} has {tell(said[first])}", remedy)
