"""`refiner-ds tracking register`: an exported refiner becomes a model in MLflow's registry."""

from pathlib import Path

from refiner_ds.config.verbs.models import TrackingRegister
from refiner_ds.errors import Failure, UserError
from refiner_ds.refiners.unclip.adapter import is_adapter
from refiner_ds.tracking.register import MlflowException, register
from refiner_ds.tracking.shipped import read_shipped, reason_of, uri_of, without_password


def run(options: TrackingRegister) -> None:
    """Copies the export to MLflow and registers it.

    Raises:
        UserError: there is no pipeline to register, or the run is tracked nowhere.
        Failure: the server does not take it.
    """
    folder = options.model
    if is_adapter(folder):
        raise UserError(
            f"{folder} is an adapter without its base, which MLflow could not load; `refiner-ds export {folder} OUT` "
            "makes a pipeline of it."
        )
    if not (folder / "model_index.json").exists():
        raise UserError(f"{folder} holds no pipeline (model_index.json is not there); name a folder that export wrote.")
    if not options.name.strip() or set(options.name) & set("/:"):
        raise UserError(
            f"--name '{options.name}' is none that MLflow gives a model, as it addresses them by models:/NAME/VERSION; "
            "take one without / and :."
        )
    uri, run_id = options.tracking_uri or uri_of(options.run or Path.cwd()), None
    if options.run:
        shipped = read_shipped(options.run)
        if not (shipped and shipped.run_id and shipped.uri == without_password(uri)):
            raise UserError(
                f"--run {options.run} has no run at {without_password(uri)} that the model could belong to; "
                f"`refiner-ds tracking sync {options.run}` makes one, or leave --run out."
            )
        run_id = shipped.run_id
    try:
        number = register(folder, options.name, uri, options.experiment, run_id)
    except MlflowException as error:
        raise Failure(
            f"MLflow at {without_password(uri)} does not take {folder} ({reason_of(error)}); mend that and start the "
            "same command again, which makes a version of its own."
        ) from error
    print(
        f"{folder} is version {number} of {options.name}: mlflow.pyfunc.load_model('models:/{options.name}/{number}')"
    )
