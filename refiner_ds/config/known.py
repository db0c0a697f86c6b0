"""Whether a verb has the flags that it is given: a mistyped one is told in one sentence, before anything is parsed."""

import dataclasses
import difflib
import re
import typing
from collections.abc import Iterator, Sequence

from tyro.conf import Positional

from refiner_ds.config.refused import REFUSED
from refiner_ds.config.training import Train
from refiner_ds.errors import UserError

FLAG = re.compile(r"--?[A-Za-z][^=]*")
"""What is a flag on a command line, without its =value; numbers below zero are none."""


def flags_of(options: type) -> set[str]:
    """The names of a verb's flags, with underscores: its fields that are not positional, and no_NAME for booleans."""
    return set(_flags_of(options))


def _flags_of(options: type) -> Iterator[str]:
    hints = typing.get_type_hints(options, include_extras=True)
    for field in dataclasses.fields(options):
        kind, *markers = typing.get_args(hints[field.name]) if _is_annotated(hints[field.name]) else [hints[field.name]]
        if Positional in markers:
            continue
        name = next((marker.name for marker in markers if getattr(marker, "name", None)), field.name)
        yield name
        if kind is bool:
            yield f"no_{name}"


def _is_annotated(hint: object) -> bool:
    return typing.get_origin(hint) is typing.Annotated


def require_known_flags(verb: str, options: type, arguments: Sequence[str]) -> None:
    """Refuses the first flag that the verb does not have; both --snake_case and --kebab-case are understood.

    Raises:
        UserError: names the flag, and what to use instead, or the nearest one.
    """
    known = flags_of(options)
    for argument in arguments:
        if not (flag := FLAG.match(argument)) or argument in ("-h", "--help") or argument.startswith("--tyro-"):
            continue
        name = flag[0].lstrip("-").replace("-", "_")
        if argument.startswith("--") and name in known:
            continue
        if options is Train and name in REFUSED:
            raise UserError(f"{flag[0]} is not carried: {REFUSED[name]}.")
        nearest = difflib.get_close_matches(name, sorted(known), n=1)
        meant = f"did you mean --{nearest[0]}? All" if nearest else "all"
        raise UserError(f"{flag[0]} is no flag of {verb}; {meant} are told by `refiner-ds {verb} --help`.")
