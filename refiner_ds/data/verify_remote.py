"""Verifying shards on another machine: each is copied here as it lies there now, looked at, and deleted again."""

import functools
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from refiner_ds.data.index import FILES, SOURCES_NAME, read_index
from refiner_ds.data.packing.crew import Tell, tell_nobody
from refiner_ds.data.packing.look import Look, Verified, look_at
from refiner_ds.data.store.contract import Store, StoredFile
from refiner_ds.data.store.opening import open_store
from refiner_ds.data.store.source import without_credentials
from refiner_ds.data.verify import verified
from refiner_ds.errors import UserError
from refiner_ds.folders import require_folder


def verify_remote(location: str, scratch: Path | None, workers: int, tell: Tell = tell_nobody) -> Iterator[Verified]:
    """Checks one shard after the other against the index; what lies beside them at a URL cannot be listed.

    No cache is asked: what it holds was sound when it came, and says nothing of the place that it came from.

    Args:
        scratch: folder that takes one shard for each worker at a time; None is the system's temporary one.

    Raises:
        UserError: the URL holds no usable index, or the scratch folder cannot be written.
    """
    if scratch:
        require_folder(scratch)
        scratch.mkdir(parents=True, exist_ok=True)
    store = open_store(location, warn=None)
    with tempfile.TemporaryDirectory(prefix="refiner_ds-verify-", dir=scratch) as name:
        folder = Path(name)
        for file in FILES:
            try:
                (folder / file).write_bytes(store.read_small(file))
            except UserError:
                if file != SOURCES_NAME:  # which is told as a problem among others
                    raise
        index = read_index(folder, without_credentials(location).rstrip("/"))
        yield from verified(index, functools.partial(_look_there, store), workers, tell)


def _look_there(store: Store, look: Look) -> Verified:
    with tempfile.TemporaryDirectory(dir=look.folder) as name:
        path = Path(name) / look.name
        path.parent.mkdir(parents=True, exist_ok=True)  # foreign tars may lie in folders
        try:
            store.copy(StoredFile(look.name, look.bytes, look.sha256), path)
        except UserError as error:
            return Verified(look.name, len(look.records), look.bytes, [f"{look.name} cannot be had: {error}"])
        except OSError as error:
            raise UserError(
                f"scratch folder {look.folder.parent} cannot take {look.name} ({error.strerror}); name one on a disk "
                "that holds a shard for each worker by --scratch."
            ) from error
        return look_at(replace(look, folder=Path(name)))
