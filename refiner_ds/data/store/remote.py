"""Shards in a remote place: whole ones through the node's cache, parts of them past it."""

import math
import threading
import time
import warnings
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

from refiner_ds.data.store.cache import Answer, Cache
from refiner_ds.data.store.contract import Damaged, NextUse, Progress, Stored
from refiner_ds.data.store.files import Held, Part
from refiner_ds.data.store.holds import Holds
from refiner_ds.data.store.prefetch import Prefetch
from refiner_ds.data.store.retry import Clock, IsStopped, Retry, Stopped, never, persevere
from refiner_ds.data.store.source import Source
from refiner_ds.data.store.transfer import download, sha256_of, transfer
from refiner_ds.errors import UserError

POLL_SECONDS = 0.05
"""How often somebody else's download is looked at."""
SMALL_SECONDS = 60.0
"""Longest deadline of the small files that a run begins with, where somebody is waiting for a word."""


class RemoteStore:
    """Shards of a source.

    Args:
        cache: None reads everything by ranges.
        progress: told of downloads.
        warn: told, once for each reason and process, what makes reading slow; None tells nobody. It goes to workers.
    """

    def __init__(
        self,
        location: str,
        source: Source,
        cache: Cache | None,
        retry: Retry,
        progress: Progress | None = None,
        warn: Callable[[str], None] | None = warnings.warn,
    ) -> None:
        self.location, self.source, self.cache, self.retry = location, source, cache, retry
        self._names: dict[str, str] = {}
        self._next_use_of_name: NextUse | None = None
        self._warn = warn
        self._begin(progress)

    def _begin(self, progress: Progress | None) -> None:
        """What belongs to this process alone."""
        self._progress = progress
        self._holds = Holds()
        self._fetched: set[str] = set()
        self._damaged: dict[str, Damaged] = {}
        self._warned: set[str] = set()
        self._prefetch: Prefetch[Stored] | None = None

    def __getstate__(self) -> dict[str, Any]:
        kept = ("location", "source", "cache", "retry", "_names", "_next_use_of_name", "_warn")
        return {name: self.__dict__[name] for name in kept}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._begin(None)

    def read_small(self, name: str) -> bytes:
        retry = replace(self.retry, deadline=min(self.retry.deadline, SMALL_SECONDS))
        return persevere(lambda: self.source.whole(name), self.source.label(name), retry, Clock(retry.deadline))

    def read(self, name: str, offset: int, size: int) -> bytes:
        content = bytearray(size)

        def sink(place: int, block: bytes) -> None:
            content[place - offset : place - offset + len(block)] = block

        if size:
            transfer(self.source, name, offset, size, sink, self.retry)
        if self.source.has_ranges is False:
            self._warn_once(
                "ranges",
                f"{self.source.label(name)} comes from a server that sends whole files only, so that each sample costs "
                "its shard up to there; give a cache that holds a shard, or use a server that knows ranges.",
            )
        return bytes(content)

    def fetch(self, shard: Stored) -> Path | None:
        self._fetched.add(shard.sha256)
        if path := self._holds.again(shard):
            return path
        if self.cache is None:
            return None
        if shard.sha256 in self._damaged:
            raise self._damaged[shard.sha256]
        if held := self._obtain(shard, self.cache):
            return self._holds.take(shard, held)
        self._warn_full(shard, self.cache)
        return None

    def release(self, shard: Stored) -> None:
        self._holds.release(shard)

    def recheck(self, shard: Stored) -> bool:
        held = self.cache.hold(shard) if self.cache else None
        if self.cache is None or held is None:
            return self.cache is None
        try:
            is_sound = sha256_of(held.descriptor, shard.bytes) == shard.sha256
            if not is_sound:
                self.cache.discard(held)
            return is_sound
        finally:
            held.release()

    def plan(self, shards: Iterable[Stored], next_use: NextUse) -> None:
        self._names = {shard.sha256: shard.name for shard in shards}
        self._next_use_of_name = next_use

    def prefetch(self, shards: Iterable[Stored]) -> None:
        if self.cache is not None:
            self._fetched = set()
            self._prefetch = self._prefetch or Prefetch(self._bring)
            self._prefetch.replace(list(shards))

    def copy(self, shard: Stored, path: Path) -> None:
        with path.open("wb") as file:

            def sink(offset: int, block: bytes) -> None:
                file.seek(offset)
                file.write(block)

            transfer(self.source, shard.name, 0, shard.bytes, sink, self.retry)

    def call_off(self) -> None:
        if self._prefetch:
            self._prefetch.call_off()

    def close(self) -> None:
        if self._prefetch:
            self._prefetch.stop()
            self._prefetch = None
        self._holds.close()

    def _obtain(self, shard: Stored, cache: Cache) -> Held | None:
        """Holds a shard, however long that takes; None where there is no room."""
        while True:
            answer = cache.request(shard, self._next_use)
            if isinstance(answer, Part):
                answer = self._fill(shard, answer, cache, never) or Answer.BUSY
            if isinstance(answer, Held):
                return answer
            if answer is Answer.FULL:
                return None
            time.sleep(POLL_SECONDS)

    def _bring(self, shard: Stored, stop: threading.Event) -> bool:
        """One step of prefetching; False where there is no room yet."""
        assert self.cache is not None
        is_passed_over = shard.sha256 in self._fetched or shard.sha256 in self._damaged
        if is_passed_over or shard.bytes > self.cache.limit_bytes:
            return True
        try:
            answer = self.cache.request(shard, self._next_use, ahead=True)
            if isinstance(answer, Part) and (held := self._fill(shard, answer, self.cache, stop.is_set)):
                held.release()
        except (UserError, Stopped):
            return True  # whoever fetches this shard meets the same, and is told
        return answer is not Answer.FULL

    def _fill(self, shard: Stored, part: Part, cache: Cache, is_stopped: IsStopped) -> Held | None:
        """Downloads into reserved space; None where somebody deleted the file meanwhile."""

        def progress(done: int) -> None:
            if self._progress:
                self._progress(f"downloading {shard.name}", done, shard.bytes)

        try:
            download(self.source, shard, part.descriptor, self.retry, is_stopped, progress)
            return cache.finish(part)
        except Damaged as error:
            self._damaged[shard.sha256] = error
            cache.abandon(part)
            raise
        except OSError as error:
            cache.abandon(part)
            raise UserError(
                f"cache folder {cache.folder} cannot take {shard.name} ({error.strerror}); name one on a sound disk."
            ) from error
        except BaseException:
            cache.abandon(part)
            raise

    def _next_use(self, sha256: str) -> float:
        name = self._names.get(sha256)
        return math.inf if name is None or self._next_use_of_name is None else self._next_use_of_name(name)

    def _warn_full(self, shard: Stored, cache: Cache) -> None:
        label = self.source.label(shard.name)
        if shard.bytes > cache.limit_bytes:
            text = f"{label} has {shard.bytes} bytes, more than the cache limit of {cache.limit_bytes}"
        else:
            text = f"cache {cache.folder} has no room for {label}: all {cache.limit_bytes} bytes or its disk are in use"
        self._warn_once("full", f"{text}, so samples are read one by one, which is slower; give the cache more room.")

    def _warn_once(self, reason: str, text: str) -> None:
        if self._warn and reason not in self._warned:
            self._warned.add(reason)
            self._warn(text)
