"""An evaluation as an MLflow run within that of the training: `python -m refiner_ds.tracking.nested OUTPUT RUN`.

The server is the one that has RUN. Ends with 1 and a sentence where it does not take the evaluation.
"""

import contextlib
import json
import os
import sys
import time
from pathlib import Path

from mlflow.entities import Metric, RunTag

from refiner_ds.tracking.ship import MlflowClient, MlflowException
from refiner_ds.tracking.shipped import read_shipped, reason_of, without_password

FILES = ("report.html", "metrics.json", "samples.csv")


def nest(output: Path, run: Path, uri: str) -> str:
    """Makes the run of one evaluation, with its means as metrics and its files; returns its id.

    Args:
        output: folder that `evaluate` wrote.
        run: output folder of the training run, which the server has.

    Raises:
        MlflowException: the server does not take it.
    """
    shipped = read_shipped(run)
    assert shipped and shipped.run_id, "the server has the run"
    client = MlflowClient(tracking_uri=uri)
    parent = client.get_run(shipped.run_id)
    name = f"evaluation {output.resolve().name}"
    tags = {"mlflow.parentRunId": shipped.run_id, "mlflow.source.name": "refiner-ds evaluate"}
    made = client.create_run(parent.info.experiment_id, run_name=name, tags=tags).info.run_id
    try:
        _fill(client, made, output)
    except (MlflowException, OSError):
        with contextlib.suppress(MlflowException):
            client.set_terminated(made, "FAILED")
        raise
    client.set_terminated(made, "FINISHED")
    return made


def _fill(client: MlflowClient, made: str, output: Path) -> None:
    now = int(time.time() * 1000)
    figures = _figures(json.loads((output / "metrics.json").read_text(encoding="utf-8")))
    metrics = [Metric(name, value, now, 0) for name, value in figures.items()]
    client.log_batch(made, metrics=metrics, tags=[RunTag("refiner_ds.output", str(output.resolve()))])
    for file in FILES:
        client.log_artifact(made, str(output / file))


def _figures(told: dict) -> dict[str, float]:
    """Means by the names that metrics.json nests them under."""
    found = {"samples": float(told["samples"]), "worse_share": told["worse"]["mean"]}
    for kind in ("render", "repaired"):
        found |= {f"{kind}/{name}": value for name, value in told[kind].items()}
    for kind in ("gain", "regions"):
        found |= {f"{kind}/{name}": estimate["mean"] for name, estimate in told[kind].items()}
    return found


def main() -> int:
    """The command line."""
    output, run = map(Path, sys.argv[1:])
    shipped, given = read_shipped(run), os.environ.get("MLFLOW_TRACKING_URI", "")
    assert shipped, "whoever starts this has seen it"
    uri = given if without_password(given) == shipped.uri else shipped.uri  # the same, with its password
    try:
        nest(output, run, uri)
    except (MlflowException, OSError) as error:
        print(f"MLflow at {without_password(uri)} does not take the evaluation ({reason_of(error)})", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
