"""`refiner-ds tracking sync`: sends MLflow what it lacks of a run."""

from refiner_ds.config.verbs.models import TrackingSync
from refiner_ds.errors import Failure, UserError
from refiner_ds.tracking.journal import FILE_NAME, SETTINGS
from refiner_ds.tracking.ship import MlflowException, send
from refiner_ds.tracking.shipped import read_shipped, reason_of, uri_of, without_password
from refiner_ds.train.lock import is_held
from refiner_ds.units import size_text


def run(options: TrackingSync) -> None:
    """Sends the rest of the journal.

    Raises:
        UserError: there is no journal, or another process is sending it.
        Failure: the server does not take it.
    """
    folder = options.run
    for name in (FILE_NAME, SETTINGS):
        if not (folder / name).exists():
            raise UserError(f"{folder} has no {name}, so there is nothing to send; name the --output_dir of a run.")
    uri = options.tracking_uri or uri_of(folder)
    known = read_shipped(folder)
    before = known.offset if known and known.uri == without_password(uri) else 0
    try:
        send(folder, uri, options.experiment, goes_on=is_held(folder))
    except BlockingIOError:
        raise UserError(
            f"another process is sending {folder} to MLflow already, and two would send it twice; wait for it, or see "
            f"{folder}/tracking.log."
        ) from None
    except MlflowException as error:
        raise Failure(
            f"MLflow at {without_password(uri)} does not take {folder} ({reason_of(error)}); {FILE_NAME} keeps all "
            "of it, and the same command sends what is missing."
        ) from error
    sent = read_shipped(folder)
    assert sent, "send has noted it"
    print(f"{size_text(sent.offset - before)} sent to run {sent.run_id} at {sent.uri}, which has all of {folder}")
