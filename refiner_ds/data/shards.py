"""Packed shards wherever they lie: their index, and the checked bytes of any picture by one positioned read."""

import hashlib
import io
import json
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

import google_crc32c

from refiner_ds.data.images import PictureError
from refiner_ds.data.index import SOURCES_NAME, Index, Member, Shard, read_index
from refiner_ds.data.index_copy import ATTEMPTS, copied_index
from refiner_ds.data.order import Order
from refiner_ds.data.remote_shards import RemoteShards
from refiner_ds.data.store.cache import Cache, CacheOptions
from refiner_ds.data.store.contract import Progress
from refiner_ds.data.store.opening import is_url, open_store
from refiner_ds.data.store.source import without_credentials
from refiner_ds.errors import UserError

OPEN_SHARDS = 64
"""Shards that one process keeps open at most; systems often allow 1024 open files."""


class BrokenSample(UserError):
    """A sample is not what the index says, wherever it is read; anything else that fails may be well the next time."""


class Files(Protocol):
    """Where the bytes of shards are read. One instance belongs to one process; it can be sent to workers."""

    location: str

    def read(self, shard: Shard, offset: int, size: int) -> bytes:
        """`size` bytes of a shard, fewer where it ends early."""

    def mend(self, shard: Shard) -> bool:
        """Whether reading again what was broken may give other bytes."""

    def plan(self, index: Index, order: Order, steps: range, places: range, run: str, leads: bool) -> None:
        """See `Shards.plan`."""

    def reach(self, step: int) -> None:
        """See `Shards.reach`."""

    def read_ahead(self, shards: list[Shard]) -> None:
        """See `Shards.read_ahead`."""

    def sources(self) -> bytes:
        """The content of sources.jsonl."""

    def call_off(self) -> None:
        """See `Shards.call_off`."""

    def close(self) -> None:
        """See `Shards.close`."""


class Shards:
    """The pictures of an index. One instance belongs to one process; it can be sent to workers."""

    def __init__(self, index: Index, files: Files) -> None:
        self.index, self._files = index, files

    @property
    def location(self) -> str:
        """The folder or URL, for people: without credentials."""
        return self._files.location

    def read(self, row: int, view: str) -> bytes:
        """The bytes of the picture of a view, as they were packed.

        Raises:
            BrokenSample: they are not what the index says; names sample, shard and cause.
            UserError: they cannot be had.
        """
        member, shard = self.index.member(row, view), self.index.shards[self.index.records[row]["shard"]]
        with self.naming(row, view):
            content = self._files.read(shard, member.offset, member.size)
            fault = _fault(content, member)
            if fault and self._files.mend(shard):
                content = self._files.read(shard, member.offset, member.size)
                fault = _fault(content, member)
            if fault:
                raise PictureError(fault)
        return content

    @contextmanager
    def naming(self, row: int, view: str) -> Iterator[None]:
        """What is wrong with a picture in this block is told with its sample and shard."""
        try:
            yield
        except (OSError, PictureError) as error:
            member = self.index.member(row, view)
            lasts = isinstance(error, PictureError | FileNotFoundError)
            raise (BrokenSample if lasts else UserError)(
                f"sample {member.name} in {self.location}/{member.shard} cannot be used: {error}; "
                f"`refiner-ds verify {self.location}` lists all that is broken."
            ) from error

    def plan(self, order: Order, steps: range, places: range, run: str, leads: bool) -> None:
        """Lets the cache of this node, if there is one, fetch and evict as a run will read. All ranks must call.

        To be called before the shards are sent to workers.

        Args:
            order: of the samples of the training split.
            steps: those that are still to come.
            places: what the ranks of this node fill of every global batch.
            run: names the run, equal on all ranks of the node: several may share its cache.
            leads: on one rank of the node, which plans and fetches ahead.
        """
        self._files.plan(self.index, order, steps, places, run, leads)

    def reach(self, step: int) -> None:
        """Tells the plan that this step is about to be made; from the rank that leads it suffices."""
        self._files.reach(step)

    def read_ahead(self, split: str) -> None:
        """Fetches the shards of a split in their order, as far as the cache has room: for reading it once."""
        self._files.read_ahead([shard for shard in self.index.shards if shard.split == split])

    def scenes(self, rows: Sequence[int], tell: Callable[[str], None]) -> list[str]:
        """The scene of each of these records as sources.jsonl has it, empty where it has none.

        Where that cannot be read, or is not what was packed, no scene is known, and it is told in a sentence.
        """
        try:
            content = self._sources()
        except (OSError, UserError) as error:
            tell(
                f"{self.location}/{SOURCES_NAME} cannot be used ({error}), so that no scenes are known: intervals are "
                "over samples, and no means are told by scene; copy it there anew."
            )
            return [""] * len(rows)
        wanted, found = {int(row) for row in rows}, dict[int, str]()
        for row, line in enumerate(io.BytesIO(content)):
            if row in wanted:
                found[row] = json.loads(line).get("scene") or ""
        return [found[int(row)] for row in rows]

    def _sources(self) -> bytes:
        for _ in range(ATTEMPTS):
            content = self._files.sources()
            if hashlib.sha256(content).hexdigest() == self.index.sources_sha256:
                return content
        raise UserError("it has another sha256 than the index says")

    def call_off(self) -> None:
        """Lets what goes on in the background end, without waiting for it: after a failure, which ends the run now."""
        self._files.call_off()

    def close(self) -> None:
        """Ends what goes on in the background."""
        self._files.close()


class FolderShards:
    """Shards in a folder of this machine, read where they lie; there is nothing to fetch, plan or mend."""

    def __init__(self, location: str) -> None:
        self.location = location
        self._descriptors: dict[str, int] = {}

    def read(self, shard: Shard, offset: int, size: int) -> bytes:
        return os.pread(self._descriptor(shard.name), size, offset)

    def mend(self, shard: Shard) -> bool:
        return False

    def plan(self, index: Index, order: Order, steps: range, places: range, run: str, leads: bool) -> None:
        """Nothing: everything is here."""

    def reach(self, step: int) -> None:
        """Nothing: there is no plan."""

    def read_ahead(self, shards: list[Shard]) -> None:
        """Nothing: everything is here."""

    def sources(self) -> bytes:
        return (Path(self.location) / SOURCES_NAME).read_bytes()

    def call_off(self) -> None:
        """Nothing goes on in the background."""

    def close(self) -> None:
        """Nothing goes on in the background."""

    def _descriptor(self, name: str) -> int:
        """An open descriptor of a shard; the one used last is at the end, and the first has to go."""
        if (descriptor := self._descriptors.pop(name, None)) is None:
            descriptor = os.open(Path(self.location) / name, os.O_RDONLY)
        self._descriptors[name] = descriptor
        if len(self._descriptors) > OPEN_SHARDS:
            os.close(self._descriptors.pop(next(iter(self._descriptors))))
        return descriptor

    def __getstate__(self) -> dict:
        return {**self.__dict__, "_descriptors": {}}  # descriptors belong to one process


def open_shards(
    location: str,
    cache: CacheOptions | None = None,
    progress: Progress | None = None,
    tell: Callable[[str], None] | None = None,
) -> Shards:
    """The shards in a folder of this machine, or at a URL.

    Args:
        cache: of the node, for a URL; None reads each picture from there each time.
        progress: told of downloads, in this process.
        tell: told in a sentence what makes reading slow; None tells nobody.

    Raises:
        UserError: there is no index, or not one of ours, or the URL or the cache cannot be read.
    """
    if not is_url(location):
        return Shards(read_index(Path(location)), FolderShards(location))
    where = without_credentials(location).rstrip("/")
    store, opened = open_store(location, cache, progress=progress, warn=tell), Cache(cache) if cache else None
    index = copied_index(store, where, opened)
    if tell and opened is None:
        tell(
            f"shards {where} are read without a cache, each picture by a request of its own and again in every epoch, "
            "which is slow; give --shard_cache a folder on a disk of each node."
        )
    return Shards(index, RemoteShards(store, where, opened, tell))


def _fault(content: bytes, member: Member) -> str | None:
    """What is wrong with the bytes of a picture."""
    if len(content) != member.size:
        return f"ends after {len(content)} of {member.size} bytes"
    if google_crc32c.value(content) != member.crc:
        return "has other bytes than the index says (crc32c)"
    return None
