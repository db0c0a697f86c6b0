"""What MLflow has of a run, as tracking.json in its folder tells it."""

import json
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
