"""Who takes part: every loader with the storage and the transform that it is measured with, a line each."""

from collections.abc import Iterable
from dataclasses import dataclass

from refiner_ds.bench.storage import JPEG, KEPT, LATENT, NPY_BUCKET, TIFF, TIFF_BUCKET, WINDOWS, Storage
from refiner_ds.errors import UserError


@dataclass(frozen=True)
class Contender:
    """One row of the table.

    Attributes:
        name: LOADER/STORAGE/TRANSFORM; --only takes it, or what stands before a slash.
        module: what runs as a process of its own.
        transform: as in `Job`.
        package: what has to be installed where it runs; None for what is installed with us.
        action: "read" for a loader, "write" for a packer.
        workers: of a packer; None takes --workers.
    """

    name: str
    module: str
    storage: Storage = KEPT
    transform: str = "recipe"
    package: str | None = None
    action: str = "read"
    workers: int | None = None


BASELINE = "baseline"
OURS, PACKING = "refiner_ds.bench.ours", "refiner_ds.bench.packing"
PEERS = {"webdataset": "webdataset", "mosaicml": "streaming", "litdata": "litdata"}
"""The peers, by the name of their module and row, and what each is imported as."""
DISTRIBUTIONS = {"webdataset": "webdataset", "streaming": "mosaicml-streaming", "litdata": "litdata"}
"""What is installed, by what is imported."""


def _of_peers(storage: Storage, kind: str, transform: str) -> tuple[Contender, ...]:
    return tuple(
        Contender(f"{peer}/{kind}", f"refiner_ds.bench.peers.{peer}", storage, transform, package)
        for peer, package in PEERS.items()
    )


CONTENDERS = (
    Contender(BASELINE, "refiner_ds.bench.baseline"),
    Contender("ours/kept/exact", OURS, KEPT, "exact"),
    Contender("ours/kept/window", OURS, KEPT, "window"),
    Contender("ours/jpeg/window", OURS, JPEG, "window"),
    Contender("ours/tiff/exact", OURS, TIFF, "exact"),
    Contender("ours/tiff/window", OURS, TIFF, "window"),
    Contender("ours/tiff-bucket", OURS, TIFF_BUCKET, "exact"),
    Contender("ours/npy-bucket", OURS, NPY_BUCKET, "exact"),
    Contender("ours/encoded/latent", OURS, LATENT, "exact"),
    Contender("ours/encoded/windows", OURS, WINDOWS, "exact"),
    *_of_peers(KEPT, "kept/recipe", "recipe"),
    *_of_peers(TIFF_BUCKET, "tiff-bucket", "exact"),
    *_of_peers(NPY_BUCKET, "npy-bucket", "exact"),
    Contender("packing/ours/1", PACKING, action="write", workers=1),
    Contender("packing/ours/2", PACKING, action="write", workers=2),
    Contender("packing/ours/writing", PACKING, transform="writing", action="write", workers=1),
    Contender(
        "packing/webdataset", "refiner_ds.bench.peers.webdataset", package="webdataset", action="write", workers=1
    ),
)
"""All of them, in the order of the table."""


def chosen(only: str | None) -> list[Contender]:
    """Those that --only names: by their names, or by the first parts of them; all where it is not given.

    Raises:
        UserError: a name that fits none.
    """
    if only is None:
        return list(CONTENDERS)
    names = [name.strip() for name in only.split(",")]
    for name in names:
        if not any(_fits(contender, [name]) for contender in CONTENDERS):
            first_parts = dict.fromkeys(contender.name.split("/")[0] for contender in CONTENDERS)
            raise UserError(
                f"--only '{name}' names no loader, so nothing would be measured for it; "
                f"take {', '.join(first_parts)} or a name of the table."
            )
    return [contender for contender in CONTENDERS if _fits(contender, names)]


def _fits(contender: Contender, names: Iterable[str]) -> bool:
    return any(f"{contender.name}/".startswith(f"{name}/") for name in names)
