"""What becomes of a run, told in its folder: state.json for schedulers and dashboards, and a mark for each good end."""

import contextlib
import json
import platform
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from os import getpid
from pathlib import Path
from typing import Any, Literal

from refiner_ds.errors import PREEMPTED
from refiner_ds.folders import file_made_whole

STATE = "state.json"
FINISHED = "finished.json"
"""Mark of a run that came to its end: launchers can exit with 0 after a crash, so this is what counts."""
STOPPED = "preempted.json"
"""Mark of a run that was asked to stop and has saved: the same command continues it."""
SECONDS_BETWEEN = 10.0
"""At least, between two tellings of the step."""


@dataclass(frozen=True)
class State:
    """The content of state.json.

    Attributes:
        state: "running" is so only while somebody holds the folder's lock: who loses power cannot tell it.
        step, steps: completed optimizer steps at the last telling, and how many the run shall have.
        host, process: of rank 0.
        started, changed: in seconds since 1970, when this start of the run took the folder, and when this was written.
        exit_code: that of the run's end; None while it runs.
        cause: what preempted it, or why it failed.
        doing: what it does while it runs.
        doing_since: when it began to, in seconds since 1970.
    """

    state: Literal["running", "finished", "preempted", "failed"]
    step: int
    steps: int
    host: str
    process: int
    started: float
    changed: float
    exit_code: int | None = None
    cause: str = ""
    doing: Literal["training", "validating"] = "training"
    doing_since: float = 0.0


def read_state(folder: Path) -> State | None:
    """What a run's folder tells; None where it tells nothing."""
    try:
        return State(**json.loads((folder / STATE).read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return None


def fail(folder: Path, cause: str, exit_code: int) -> None:
    """Tells that a run has failed, for a rank 0 that may not be able to, and knows only its own part of it."""
    held = read_state(folder)
    if held and held.state in ("running", "failed"):
        with contextlib.suppress(OSError):
            _write(folder, replace(held, state="failed", cause=cause, exit_code=exit_code))


class StateFile:
    """The file of one start of a run. Rank 0 alone writes it, from `begin` on, when the folder is its own."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._state: State | None = None
        self._is_told = False
        self.before: State | None = None
        """What the start before has left."""

    def begin(self, steps: int) -> None:
        """Takes the file over from the start before, whose last step stands until this one tells another.

        That a run is finished stands too, until it is known that this start goes well.
        """
        self.before, now = read_state(self._folder), time.time()
        step = self.before.step if self.before else 0
        self._state = State("running", step, steps, platform.node(), getpid(), now, now)
        if not self.before or self.before.state != "finished":
            self._become()

    def reach(self, step: int, is_first: bool = False) -> None:
        """Tells how many steps are completed, now and then; on a disk that is full for now it stays as it was.

        Args:
            is_first: of this start, so that it is told at once, and marks of an earlier end go.
        """
        assert self._state, "begin comes first"
        if is_first:
            for mark in (FINISHED, STOPPED):
                (self._folder / mark).unlink(missing_ok=True)
        if is_first or time.time() - self._state.changed > SECONDS_BETWEEN:
            with contextlib.suppress(OSError):
                self._become(step=step)

    @contextlib.contextmanager
    def validating(self) -> Iterator[None]:
        """Within, it is told that the run validates; `beat` tells that it still does."""
        self._do("validating")
        yield
        self._do("training")

    def beat(self) -> None:
        """Tells now and then that the run still does what it did."""
        assert self._state, "begin comes first"
        if time.time() - self._state.changed > SECONDS_BETWEEN:
            with contextlib.suppress(OSError):
                self._become()

    def _do(self, doing: str) -> None:
        with contextlib.suppress(OSError):
            self._become(doing=doing, doing_since=time.time())

    def finish(self, step: int) -> None:
        """The run has come to its end."""
        _write_whole(self._folder / FINISHED, {"step": step})
        self._become(state="finished", step=step, exit_code=0)

    def preempt(self, step: int, cause: str) -> None:
        """The run was asked to stop by `cause`, and has saved."""
        _write_whole(self._folder / STOPPED, {"step": step, "cause": cause})
        self._become(state="preempted", step=step, cause=cause, exit_code=PREEMPTED)

    def fail(self, cause: str, exit_code: int) -> None:
        """The run ends for a fault, if it ever began and has not ended well."""
        if self._is_told and self._state and self._state.state == "running":
            with contextlib.suppress(OSError):
                self._become(state="failed", cause=cause, exit_code=exit_code)

    def _become(self, **changes: Any) -> None:
        assert self._state, "begin comes first"
        self._state = _write(self._folder, replace(self._state, **changes))
        self._is_told = True


def _write(folder: Path, state: State) -> State:
    state = replace(state, changed=time.time())
    _write_whole(folder / STATE, asdict(state))
    return state


def _write_whole(path: Path, content: dict[str, Any]) -> None:
    with file_made_whole(path) as scratch:
        scratch.write_text(json.dumps(content) + "\n", encoding="utf-8")
