"""Registers an exported refiner with MLflow, as a model that `mlflow.pyfunc` loads and that repairs pictures."""

import io
from importlib.metadata import version
from pathlib import Path

import mlflow
import pandas as pd
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException as MlflowException
from mlflow.models import ModelSignature
from mlflow.types.schema import ColSpec, DataType, ParamSchema, ParamSpec, Schema
from PIL import Image

CODE = Path(__file__).with_name("served.py")
REQUIREMENTS = ("torch", "diffusers", "transformers", "accelerate", "Pillow", "pandas")
SIGNATURE = ModelSignature(
    inputs=Schema([ColSpec(DataType.binary, "render"), ColSpec(DataType.binary, "cond")]),
    outputs=Schema([ColSpec(DataType.binary, "repaired")]),
    params=ParamSchema(
        [ParamSpec("seed", DataType.long, 0), ParamSpec("num_inference_steps", DataType.long, 0)],
    ),
)
EXAMPLE_SIZE = (64, 64)


def register(folder: Path, name: str, uri: str, experiment: str, run_id: str | None) -> str:
    """Copies an export to MLflow's artifacts and makes it a version of a model; returns that version.

    Args:
        run_id: run that it belongs to, whose status stays as it is; a run of its own where there is none.

    Raises:
        MlflowException: the server does not take it.
    """
    mlflow.set_tracking_uri(uri)
    status = "FINISHED"
    if run_id:
        status = MlflowClient(uri).get_run(run_id).info.status
    else:
        mlflow.set_experiment(experiment)
    mlflow.start_run(run_id=run_id, run_name=None if run_id else name)
    try:
        model = mlflow.pyfunc.log_model(
            name="refiner",
            python_model=str(CODE),
            artifacts={"refiner": str(folder)},
            signature=SIGNATURE,
            input_example=_example(),
            pip_requirements=[f"{package}=={version(package)}" for package in REQUIREMENTS],
            registered_model_name=name,
        )
    except BaseException:
        mlflow.end_run(status if run_id else "FAILED")
        raise
    mlflow.end_run(status)
    return str(model.registered_model_version)


def _example() -> pd.DataFrame:
    """A grey render and a grey photograph."""
    buffer = io.BytesIO()
    Image.new("RGB", EXAMPLE_SIZE, "grey").save(buffer, "PNG")
    return pd.DataFrame({"render": [buffer.getvalue()], "cond": [buffer.getvalue()]})
