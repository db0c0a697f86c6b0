"""The shipper: the only importer of mlflow. A process beside training that carries the journal to MLflow, line by line.

`python -m refiner_ds.tracking.ship OUTPUT_DIR` ends once the run is finished, or its trainer is gone, and every line
has been accepted; what was accepted is noted in tracking.json, so that starting it again sends only the rest.
"""

import argparse
import fcntl
import json
import os
import sys
import time
import uuid
from pathlib import Path
from typing import Any

# before the import, which reads them: no retries inside a call, since this process has its own
os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "20")

from mlflow import MlflowClient
from mlflow.entities import Dataset, DatasetInput, InputTag, Metric, Param, RunTag
from mlflow.exceptions import MlflowException
from PIL import Image

from refiner_ds.state import State, read_state
from refiner_ds.tracking.described import dataset_of, tags_of
from refiner_ds.tracking.journal import FILE_NAME, PICTURE, REFERENCE, SETTINGS, read_line
from refiner_ds.tracking.shipped import Shipped, read_shipped, reason_of, uri_of, without_password

LOCK = ".tracking.lock"
KEY = "refiner_ds.key"
LINES_AT_ONCE = 100
METRICS_AT_ONCE = 1000
"""What one log_batch request may carry."""
STATUS = {"finished": "FINISHED", "preempted": "KILLED"}
"""MLflow's words for how a run ends; all others are FAILED."""
CAUSE_SECONDS = 10.0
"""How long after the trainer is gone its warden may take to tell why."""
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
        self.accepted = 0
        """Parts that the server has taken, which tells one that is slow to take all from one that takes nothing."""
        self._shipped: Shipped | None = None
        self._unsent = [self._ship_parameters, self._ship_files, self._ship_deepspeed, self._ship_data]

    def open_run(self) -> None:
        """Finds the job's run again, or creates it with its parameters: one run per job, however often it resumes."""
        if self._shipped:
            return
        known = read_shipped(self._folder)
        if known and known.uri == self._uri and known.run_id:
            self._client.update_run(known.run_id, status="RUNNING")
            self._shipped = known
            return
        if not (known and known.uri == self._uri):
            known = Shipped("", self._uri, key=uuid.uuid4().hex)
            known.note(self._folder)  # before the server makes it, so that another attempt finds what that has made
        found = self._client.get_experiment_by_name(self._experiment)
        experiment = found.experiment_id if found else self._client.create_experiment(self._experiment)
        made = self._client.search_runs([experiment], f"tags.`{KEY}` = '{known.key}'", max_results=1)
        run = (
            made[0] if made else self._client.create_run(experiment, run_name=self._folder.name, tags={KEY: known.key})
        )
        known.run_id = run.info.run_id
        known.note(self._folder)
        self._shipped = known

    def ship_settings(self) -> None:
        """Sends parameters, tags, data set and the settings; parameters that the run has already keep their values.

        What the server has taken is not sent again by the next call.
        """
        while self._unsent:
            self._unsent[0]()
            del self._unsent[0]
            self.accepted += 1

    def _ship_parameters(self) -> None:
        run, settings = self._run_id, self._settings()
        has = self._client.get_run(run).data.params
        settings.pop("data", None)  # which the data set has; names of data sets may be none of MLflow's
        params = [Param(name, str(value)[:6000]) for name, value in _flat(settings) if name not in has]
        present = {"refiner_ds.state": "running", "refiner_ds.cause": ""}  # of a run that goes on after an end
        tags = [RunTag(name, value) for name, value in {**tags_of(self._folder, settings), **present}.items()]
        self._client.log_batch(run, tags=tags)
        for start in range(0, len(params), 100):
            self._client.log_batch(run, params=params[start : start + 100])

    def _ship_files(self) -> None:
        self._client.log_artifact(self._run_id, str(self._folder / SETTINGS))

    def _ship_deepspeed(self) -> None:
        if "deepspeed" in (settings := self._settings()):
            self._client.log_dict(self._run_id, settings["deepspeed"], "deepspeed.json")

    def _ship_data(self) -> None:
        if data := dataset_of(self._settings()):
            inputs = DatasetInput(Dataset(**data), [InputTag("mlflow.data.context", "training")])
            self._client.log_inputs(self._run_id, [inputs])

    @property
    def _run_id(self) -> str:
        assert self._shipped is not None, "open_run comes first"
        return self._shipped.run_id

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
            if REFERENCE in entry:
                what, path = entry[REFERENCE]
                place = f"step {entry['step']}: {self._folder.resolve() / path}"
                self._client.set_tag(self._shipped.run_id, f"refiner_ds.{what}", place)
        self._shipped.offset += sum(map(len, lines))
        self._shipped.note(self._folder)
        self.accepted += 1
        return False

    def close_run(self, state: State | None) -> None:
        """Sets how the job ended; without a state it has failed before it could tell."""
        word, cause = (state.state, state.cause) if state else ("failed", "")
        self._client.log_batch(self._run_id, tags=[RunTag("refiner_ds.state", word), RunTag("refiner_ds.cause", cause)])
        self._client.set_terminated(self._run_id, STATUS.get(word, "FAILED"))

    def delete_run(self) -> None:
        """Takes the run away again, as far as MLflow does that: it can still be restored."""
        assert self._shipped is not None, "open_run comes first"
        self._client.delete_run(self._shipped.run_id)

    def _settings(self) -> dict[str, Any]:
        return json.loads((self._folder / SETTINGS).read_text(encoding="utf-8"))

    def _picture(self, run_id: str, entry: dict[str, Any]) -> None:
        path = self._folder / entry[PICTURE]
        if path.exists():  # a person may have tidied up
            key = f"validation_{path.stem}"
            with Image.open(path) as picture:
                self._client.log_image(run_id, picture.convert("RGB"), key=key, step=entry["step"])


def _metrics(entry: dict[str, Any]) -> list[Metric]:
    when = int(entry["time"] * 1000)
    values = {name: value for name, value in entry.items() if name not in ("step", "time", PICTURE, REFERENCE)}
    return [Metric(name, float(value), when, entry["step"]) for name, value in values.items()]


def _flat(settings: dict[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    """Nested settings as dotted names and values."""
    pairs = []
    for name, value in settings.items():
        pairs += _flat(value, f"{prefix}{name}.") if isinstance(value, dict) else [(prefix + name, value)]
    return pairs


def _is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    return True


def send(folder: Path, uri: str, experiment: str, goes_on: bool) -> None:
    """Ships what is there once, and how the run has ended unless it goes on.

    Raises:
        MlflowException: the server does not take it; what it took is noted.
        BlockingIOError: another process is shipping it.
    """
    with (folder / LOCK).open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        shipper = Shipper(folder, uri, experiment)
        shipper.open_run()
        shipper.ship_settings()
        while not shipper.ship():
            pass
        if not goes_on:
            shipper.close_run(_told_end(folder))


def follow(folder: Path, uri: str, experiment: str, trainer: int) -> int:
    """Ships until the trainer has ended and everything is there; 0 if so, 1 if the server could not be reached."""
    shipper = Shipper(folder, uri, experiment)
    pause, accepted, deadline, complaint, gone = 1.0, 0, None, None, None
    while True:
        end, is_other = _told_end(folder), _is_another_start(folder, trainer)
        if not _is_alive(trainer):
            gone = gone or time.monotonic()
        # a run that is killed cannot tell why, and one that fails may know the consequence alone; its warden may still
        is_final = end is not None and end.state != "failed"
        has_ended = is_final or is_other or (gone is not None and time.monotonic() - gone > CAUSE_SECONDS)
        try:
            shipper.open_run()
            shipper.ship_settings()
            while not shipper.ship():
                pass
            if has_ended:
                if not is_other:  # else the shipper of the other start waits for its turn
                    shipper.close_run(end)
                return 0
            pause, complaint = 1.0, None
        except (MlflowException, OSError) as error:
            pause = 1.0 if shipper.accepted > accepted else min(2 * pause, LONGEST_PAUSE_SECONDS)
            accepted = shipper.accepted
            if complaint is None:
                complaint = reason_of(error)
                print(f"tracking: MLflow at {without_password(uri)} does not take the metrics ({complaint}); "
                      f"{FILE_NAME} keeps everything until it does", file=sys.stderr)  # fmt: skip
        if has_ended:
            deadline = deadline or time.monotonic() + PATIENCE_SECONDS
            if time.monotonic() > deadline:
                return 1
        time.sleep(pause)


def _told_end(folder: Path) -> State | None:
    """How a run has ended, as it tells it; None while it runs, or where it could not tell."""
    state = read_state(folder)
    return state if state and state.state != "running" else None


def _is_another_start(folder: Path, trainer: int) -> bool:
    state = read_state(folder)
    return state is not None and state.state == "running" and state.process != trainer


def main() -> int:
    """The command line; the server comes from MLFLOW_TRACKING_URI, so that no credential shows in a process list."""
    parser = argparse.ArgumentParser(prog="python -m refiner_ds.tracking.ship", description=__doc__)
    parser.add_argument("output_dir", type=Path, help="folder of the run")
    parser.add_argument("--experiment", default="refiner_ds", help="MLflow experiment of the run")
    parser.add_argument("--trainer", type=int, required=True, help="process to follow until it ends")
    options = parser.parse_args()
    uri = uri_of(options.output_dir)
    with (options.output_dir / LOCK).open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # the shipper of an interrupted run may still be sending
        return follow(options.output_dir, uri, options.experiment, options.trainer)


if __name__ == "__main__":
    sys.exit(main())
