"""What MLflow has of a run, as tracking.json in its folder tells it."""

import json
import os
import re
from dataclasses import asdict, dataclass
from pathlib import Path

from refiner_ds.tracking.journal import FILE_NAME

STATE = "tracking.json"


@dataclass
class Shipped:
    """What the server at `uri` has: the run, and how many bytes of the journal.

    Attributes:
        run_id: empty until the server has told it.
        key: tag by which the run is found if the server has made it and could not tell.
    """

    run_id: str
    uri: str
    offset: int = 0
    key: str = ""

    def behind(self, folder: Path) -> int:
        """Bytes of the journal that the server lacks."""
        return (folder / FILE_NAME).stat().st_size - self.offset

    def note(self, folder: Path) -> None:
        """Writes it down."""
        scratch = folder / f".{STATE}"
        scratch.write_text(json.dumps(asdict(self)), encoding="utf-8")
        scratch.replace(folder / STATE)


def read_shipped(folder: Path) -> Shipped | None:
    """What a run's server has, if it ever had anything."""
    path = folder / STATE
    return Shipped(**json.loads(path.read_text(encoding="utf-8"))) if path.exists() else None


def uri_of(folder: Path) -> str:
    """Where a run is tracked: the server in the environment, else the one that has it, else a store of this folder."""
    known = read_shipped(folder)
    # a resumed run goes on where it was tracked, from whatever folder it is started
    return os.environ.get("MLFLOW_TRACKING_URI") or (known.uri if known else f"sqlite:///{Path.cwd()}/mlflow.db")


def without_password(text: str) -> str:
    """The text without what stands before the host in its addresses."""
    return re.sub(r"//[^/@\s]+@", "//", text)


def reason_of(error: Exception) -> str:
    """What a server or a library says first of why it does not take something."""
    return without_password(str(error).splitlines()[0]) if str(error) else type(error).__name__
