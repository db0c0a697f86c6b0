"""The index of shards on another machine, copied to this one, where it is mapped like any other."""

import hashlib
import os
import shutil
import tempfile
import weakref
from collections.abc import Callable
from pathlib import Path

from refiner_ds.data.index import (
    FILE_NAME,
    RECORDS_NAME,
    Index,
    content_of,
    read_index,
    sha256_of,
)
from refiner_ds.data.store.cache import Cache
from refiner_ds.data.store.contract import Store
from refiner_ds.data.store.files import INDEX, wait_for_lock
from refiner_ds.errors import UserError

ATTEMPTS = 3
"""Times that a file is read whose sha256 is wrong: it may have been replaced, or broken on its way."""


def copied_index(store: Store, where: str, cache: Cache | None) -> Index:
    """The index of a store; `where` is what errors call the store.

    index.json is read anew each time, so that shards that were packed again are noticed; what it names by its sum is
    copied once, into the cache for all processes of the node, or without one into a folder that goes with the index.

    Raises:
        UserError: there is no index, or not one of ours, or it cannot be had.
    """
    text = store.read_small(FILE_NAME)
    content = content_of(text, f"{where}/{FILE_NAME}")
    wanted = {RECORDS_NAME: str(content.get("records_sha256")), FILE_NAME: hashlib.sha256(text).hexdigest()}

    def bring(name: str) -> bytes:
        return text if name == FILE_NAME else _checked(store, where, name, wanted[name])

    if cache is not None:
        return read_index(_in_cache(cache, wanted, bring), where)
    folder = Path(tempfile.mkdtemp(prefix="refiner_ds-index-"))
    try:
        for name in wanted:
            (folder / name).write_bytes(bring(name))
        index = read_index(folder, where)
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    weakref.finalize(index, shutil.rmtree, folder, ignore_errors=True)
    return index


def _in_cache(cache: Cache, wanted: dict[str, str], bring: Callable[[str], bytes]) -> Path:
    """The folder of the cache that holds these files, by name and sha256, brought there where they are not sound."""
    folder = cache.folder / f"{wanted[FILE_NAME]}{INDEX}"
    descriptor = wait_for_lock(cache.folder / "index.lock")  # others of this node wait, and find them there
    try:
        for name, sha256 in wanted.items():
            path = folder / name
            if not path.exists() or sha256_of(path) != sha256:
                cache.place(f"{folder.name}/{name}", bring(name)).release()
    finally:
        os.close(descriptor)
    return folder


def _checked(store: Store, where: str, name: str, sha256: str) -> bytes:
    for _ in range(ATTEMPTS):
        content = store.read_small(name)
        if hashlib.sha256(content).hexdigest() == sha256:
            return content
    raise UserError(
        f"{where}/{name} has another sha256 than {FILE_NAME} says: it was edited or damaged, or is being replaced; "
        "copy the shards there anew, or pack again."
    )
