"""The shipper: the only importer of mlflow. A process beside training that carries the journal to MLflow, line by line.

`python -m refiner_ds.tracking.ship OUTPUT_DIR` ends once the run is finished, or its trainer is gone, and every line
has been accepted; what was accepted is noted in tracking.json, so that starting it again sends only the rest.
"""

import argparse
import fcntl
import json
import os
import re
import sys
import time
from pathlib import Path
from typing import Any

# before the import, which reads them: no retries inside a call, since this process has its own
os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "20")

from mlflow import MlflowClient
from mlflow.entities import Metric, Param
from mlflow.exceptions import MlflowException
from PIL import Image

from refiner_ds.state import FINISHED
from refiner_ds.tracking.journal import FILE_NAME, PICTURE, SETTINGS, read_line
from refiner_ds.tracking.shipped import Shipped, read_shipped

LOCK = ".tracking.lock"
LINES_AT_ONCE = 100
METRICS_AT_ONCE = 1000
"""What one log_batch request may carry."""
LONGEST_PAUSE_SECONDS = 15.0
PATIENCE_SECONDS = 600.0
"""How long after training has ended an unreachable server is still tried."""


class Shipper:
    """Carries one run's journal; every call may raise MlflowException, and may then be made again."""

    def __init__(self, folder: Path, uri: str, experiment: str) -> None:
        self._folder = folder
        self._uri = without_password(uri)
        self._client = MlflowClient(tracking_uri=uri)
        self._experiment = experiment
        self._shipped: Shipped | None = None

    def open_run(self) -> None:
        """Finds the job's run again, or creates it with its parameters: one run per job, however often it resumes."""
        known = read_shipped(self._folder)
        if known and known.uri == self._uri:
            self._client.update_run(known.run_id, status="RUNNING")
            self._shipped = known
            return
        found = self._client.get_experiment_by_name(self._experiment)
        experiment = found.experiment_id if found else self._client.create_experiment(self._experiment)
        shipped = Shipped(self._client.create_run(experiment, run_name=self._folder.name).info.run_id, self._uri)
        shipped.note(self._folder)  # before anything else can fail, so that another attempt takes the same run
        self._shipped = shipped

    def ship_settings(self) -> None:
        """Sends parameters and the settings file; parameters that the run has already keep their values."""
        assert self._shipped is not None, "open_run comes first"
        run = self._shipped.run_id
        settings = json.loads((self._folder / SETTINGS).read_text(encoding="utf-8"))
        has = self._client.get_run(run).data.params
        params = [Param(name, str(value)[:6000]) for name, value in _flat(settings) if name not in has]
        for start in range(0, len(params), 100):
            self._client.log_batch(run, params=params[start : start + 100])
        self._client.log_artifact(run, str(self._folder / SETTINGS))

    def ship(self) -> bool:
        """Sends the next lines, if there are any; true once the server has all of them."""
        assert self._shipped is not None, "open_run comes first"
        with (self._folder / FILE_NAME).open("rb") as file:
            file.seek(self._shipped.offset)
            lines: list[bytes] = []
            for line in file:
                if not line.endswith(b"\n") or len(lines) == LINES_AT_ONCE:
                    break
                lines.append(line)
        if not lines:
            return True
        entries = [entry for line in lines if (entry := read_line(line)) is not None]
        metrics = [metric for entry in entries for metric in _metrics(entry)]
        for start in range(0, len(metrics), METRICS_AT_ONCE):
            self._client.log_batch(self._shipped.run_id, metrics=metrics[start : start + METRICS_AT_ONCE])
        for entry in entries:
            if PICTURE in entry:
                self._picture(self._shipped.run_id, entry)
        self._shipped.offset += sum(map(len, lines))
        self._shipped.note(self._folder)
        return False

    def close_run(self, status: str) -> None:
        """Sets how the job ended: FINISHED or FAILED."""
        assert self._shipped is not None, "open_run comes first"
        self._client.set_terminated(self._shipped.run_id, status)

    def delete_run(self) -> None:
        """Takes the run away again, as far as MLflow does that: it can still be restored."""
        assert self._shipped is not None, "open_run comes first"
        self._client.delete_run(self._shipped.run_id)

    def _picture(self, run_id: str, entry: dict[str, Any]) -> None:
        path = self._folder / entry[PICTURE]
        if path.exists():  # a person may have tidied up
            key = f"validation_{path.stem}"
            with Image.open(path) as picture:
                self._client.log_image(run_id, picture.convert("RGB"), key=key, step=entry["step"])


def _metrics(entry: dict[str, Any]) -> list[Metric]:
    when = int(entry["time"] * 1000)
    values = {name: value for name, value in entry.items() if name not in ("step", "time", PICTURE)}
    return [Metric(name, float(value), when, entry["step"]) for name, value in values.items()]


def _flat(settings: dict[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    """Nested settings as dotted names and values."""
    pairs = []
    for name, value in settings.items():
        pairs += _flat(value, f"{prefix}{name}.") if isinstance(value, dict) else [(prefix + name, value)]
    return pairs


def _is_alive(process: int | None) -> bool:
    if process is None:
        return False
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    return True


def follow(folder: Path, uri: str, experiment: str, trainer: int | None) -> int:
    """Ships until the trainer has ended and everything is there; 0 if so, 1 if the server could not be reached."""
    shipper = Shipper(folder, uri, experiment)
    is_open, pause, deadline, complaint = False, 1.0, None, None
    while True:
        has_ended = not _is_alive(trainer) or (folder / FINISHED).exists()
        try:
            if not is_open:
                shipper.open_run()
                shipper.ship_settings()
                is_open = True
            while not shipper.ship():
                pass
            if has_ended:
                shipper.close_run("FINISHED" if (folder / FINISHED).exists() else "FAILED")
                return 0
            pause, complaint = 1.0, None
        except (MlflowException, OSError) as error:
            pause = min(2 * pause, LONGEST_PAUSE_SECONDS)
            if complaint is None:
                complaint = without_password(str(error).splitlines()[0])
                print(f"tracking: MLflow at {without_password(uri)} does not take the metrics ({complaint}); "
                      f"{FILE_NAME} keeps everything until it does", file=sys.stderr)  # fmt: skip
        if has_ended:
            deadline = deadline or time.monotonic() + PATIENCE_SECONDS
            if time.monotonic() > deadline:
                return 1
        time.sleep(pause)


def without_password(text: str) -> str:
    """The text without what stands before the host in its addresses."""
    return re.sub(r"//[^/@\s]+@", "//", text)


def main() -> int:
    """The command line; the server comes from MLFLOW_TRACKING_URI, so that no credential shows in a process list."""
    parser = argparse.ArgumentParser(prog="python -m refiner_ds.tracking.ship", description=__doc__)
    parser.add_argument("output_dir", type=Path, help="folder of the run")
    parser.add_argument("--experiment", default="refiner_ds", help="MLflow experiment of the run")
    parser.add_argument("--trainer", type=int, help="process to follow until it ends; without it, ship what is there")
    options = parser.parse_args()
    known = read_shipped(options.output_dir)
    # a resumed run goes on where it was tracked, from whatever folder it is started
    uri = os.environ.get("MLFLOW_TRACKING_URI") or (known.uri if known else f"sqlite:///{Path.cwd()}/mlflow.db")
    with (options.output_dir / LOCK).open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # the shipper of an interrupted run may still be sending
        return follow(options.output_dir, uri, options.experiment, options.trainer)


if __name__ == "__main__":
    sys.exit(main())
