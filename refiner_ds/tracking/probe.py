"""`python -m refiner_ds.tracking.probe EXPERIMENT`: whether MLflow takes a run, by sending a small one and deleting it.

The server comes from MLFLOW_TRACKING_URI. Ends with 1 and a sentence where it does not.
"""

import json
import os
import sys
import tempfile
import time
from pathlib import Path

from refiner_ds.tracking.journal import FILE_NAME, SETTINGS
from refiner_ds.tracking.ship import MlflowException, Shipper
from refiner_ds.tracking.shipped import without_password


def probe(uri: str, experiment: str) -> None:
    """Does all that a run's shipper does: a run, its parameters and an artifact, a metric; and deletes the run.

    Raises:
        MlflowException: the server refuses, or cannot be reached.
    """
    with tempfile.TemporaryDirectory(prefix="refiner-ds-doctor-") as name:
        folder = Path(name)
        (folder / SETTINGS).write_text(json.dumps({"doctor": True}), encoding="utf-8")
        line = {"step": 0, "time": time.time(), "doctor/probe": 1.0}
        (folder / FILE_NAME).write_text(json.dumps(line) + "\n", encoding="utf-8")
        shipper = Shipper(folder, uri, experiment)
        shipper.open_run()
        try:
            shipper.ship_settings()
            while not shipper.ship():
                pass
            shipper.close_run(None)
        finally:
            shipper.delete_run()


def main() -> int:
    """The command line."""
    uri = os.environ["MLFLOW_TRACKING_URI"]
    try:
        probe(uri, sys.argv[1])
    except (MlflowException, OSError) as error:
        reason = str(error).splitlines()[0]
        reason = "nobody answers there" if "Max retries exceeded" in reason else reason[:300]
        print(without_password(f"{uri} does not take a run ({reason})"), file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
