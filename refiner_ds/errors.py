"""The exceptions that are told as their sentence without a traceback; and notes."""

import sys

PREEMPTED = 75
"""Exit code of a run that was asked to stop and has saved: the same command continues it (sysexits.h: EX_TEMPFAIL)."""


class UserError(ValueError):
    """One sentence for a person: which setting, its value, what follows from it, and the remedy."""


class Failure(Exception):
    """One sentence on what no change of the command would mend, and the same command again may."""


def note(text: str) -> None:
    """Tells a person what is no error and yet worth a sentence."""
    print(f"note: {text}", file=sys.stderr, flush=True)
