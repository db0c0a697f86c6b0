"""Exports of the best checkpoint beside training: a process of its own for each, at most one at a time, by rank 0."""

import json
import os
import shlex
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from refiner_ds.checkpoint.layout import name_of, read
from refiner_ds.checkpoint.place import Place
from refiner_ds.errors import UserError
from refiner_ds.refiners.unclip.adapter import RECORD
from refiner_ds.world import World

BEST = "best"
"""Folder of the export in a run's folder; its export.json tells step and figures."""
LOG = "export.log"
SECONDS = 120.0
"""How long the end of a run waits for the last export, which goes on by itself after that."""
LOWEST_PRIORITY = 19


def require_shared(place: Place, world: World) -> None:
    """Refuses the folder of a run of which no node sees whole checkpoints.

    Raises:
        UserError: it is one.
    """
    if len(place.ranks) < world.size:
        raise UserError(
            "--export_best needs whole checkpoints in one folder, and --output_dir is a folder of each node's own; "
            "name one that all nodes see, or leave it out and export after the run."
        )


class BestExport:
    """Keeps OUTPUT_DIR/best the export of the best checkpoint. Training never waits for it, nor ends with it.

    Args:
        folder: of the run.
        in_use: steps whose checkpoints are read or will be, so that retention lets them be.
        tell: told in words what was exported, and what could not be.
        refer: told the step of each export that lies there.
    """

    def __init__(
        self, folder: Path, in_use: set[int], tell: Callable[[str], None], refer: Callable[[int], object]
    ) -> None:
        self._folder, self._in_use, self._tell, self._refer = folder, in_use, tell, refer
        self._process: subprocess.Popen | None = None
        self._exporting = -1
        self._waiting: int | None = None

    def catch_up(self, best: list[int]) -> None:
        """Wants the best step so far, if there is one, where it is not what was exported last: the run was killed."""
        try:
            exported = json.loads((self._folder / BEST / RECORD).read_text(encoding="utf-8"))["step"]
        except (OSError, ValueError, KeyError, TypeError):
            exported = None
        if best and best == [exported]:
            self._refer(exported)  # by an export that has outlived the start before
        elif best:
            self.want(best[0])

    def want(self, step: int) -> None:
        """Lets the checkpoint of a step be exported once it is complete; of those that wait only the newest is."""
        if self._waiting is not None:
            self._in_use.discard(self._waiting)
        self._waiting = step
        self._in_use.add(step)

    def poll(self, is_saving: bool) -> None:
        """Ends what has ended, and starts what waits where no checkpoint is on its way; to be called often."""
        if self._process and self._process.poll() is not None:
            self._end(self._process.returncode)
        if self._waiting is None or self._process or is_saving:
            return
        step, self._waiting = self._waiting, None
        if read(self._folder / name_of(step)):
            self._start(step)
        else:  # which was told when it could not be written
            self._in_use.discard(step)

    def finish(self, seconds: float, is_asked_to_stop: Callable[[], bool] = lambda: False) -> None:
        """Waits so long for what runs and what waits, and tells what is left. No checkpoint may be on its way."""
        deadline = time.monotonic() + seconds
        self.poll(is_saving=False)
        while self._process and time.monotonic() < deadline and not is_asked_to_stop():
            time.sleep(0.1)
            self.poll(is_saving=False)
        if self._process:
            self._tell(
                f"the best checkpoint, of step {self._exporting}, is still being exported by process "
                f"{self._process.pid}; see {self._folder / LOG}"
            )
        if self._waiting is not None:
            command = shlex.join(["refiner-ds", *self._arguments(self._waiting)])
            self._tell(f"the best checkpoint, of step {self._waiting}, is not exported yet: {command}")

    def _start(self, step: int) -> None:
        try:
            self._process = _in_background([sys.executable, "-m", "refiner_ds", *self._arguments(step)], self._folder)
            self._exporting = step
        except OSError as error:
            self._fail(step, error.strerror or str(error))

    def _end(self, code: int) -> None:
        step, self._process = self._exporting, None
        if code:
            self._fail(step, f"exit code {code}, see {self._folder / LOG}")
            return
        self._in_use.discard(step)
        self._refer(step)
        self._tell(f"exported the best checkpoint, of step {step}, into {self._folder / BEST}")

    def _fail(self, step: int, reason: str) -> None:
        self._in_use.discard(step)
        self._tell(
            f"warning: the best checkpoint, of step {step}, could not be exported ({reason}); training goes on, and "
            f"{self._folder / BEST} stays as it was"
        )

    def _arguments(self, step: int) -> list[str]:
        return ["export", str(self._folder / name_of(step)), str(self._folder / BEST), "--replace"]


def _in_background(command: list[str], folder: Path) -> subprocess.Popen:
    """A process of its own session without a GPU, which takes what time others leave; its words go to export.log."""
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}
    with (folder / LOG).open("a", encoding="utf-8") as log:
        process = subprocess.Popen(
            command, env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
        )
    os.setpriority(os.PRIO_PROCESS, process.pid, LOWEST_PRIORITY)
    return process
