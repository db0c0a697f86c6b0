"""Writing encoded shards: one for each shard of pictures, in any order and by any number of processes, then the index.

A shard has its name once it is whole and synced, and then a note of what it holds. So a killed run goes on, and who
writes the index knows when all shards are there.
"""

import hashlib
import json
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import numpy as np

from refiner_ds.data.index import FILES, KINDS, SOURCES_NAME, SPLITS, Shard, write_index
from refiner_ds.data.latents import LATENTS, Encoding
from refiner_ds.data.manifest import VIEWS
from refiner_ds.data.packing.scratch import Writing
from refiner_ds.data.packing.tar import card_of
from refiner_ds.data.packing.write import Written, put, put_card, read_note, write_whole
from refiner_ds.data.shards import Shards

POLL_SECONDS = 0.5

Members = Callable[[int], Sequence[bytes]]
"""Encodes the training sample in a row of the index: its members by view in VIEWS' order."""


class Part(NamedTuple):
    """A shard to write: its name, its split, and the rows of the source's index that it holds."""

    name: str
    split: str
    rows: range


@dataclass(frozen=True, eq=False)
class Encoded:
    """Encoded shards while they are written: training samples encoded, held-out pictures as they are."""

    source: Shards
    encoding: Encoding
    writing: Writing

    @cached_property
    def parts(self) -> list[Part]:
        """A part for each shard of the source, in the order of the index, numbered by split."""
        parts, first = [], 0
        numbers = dict.fromkeys(SPLITS, 0)
        for shard in self.source.index.shards:
            name = f"{shard.split}-{numbers[shard.split]:06d}.tar"
            parts.append(Part(name, shard.split, range(first, first + shard.samples)))
            first, numbers[shard.split] = first + shard.samples, numbers[shard.split] + 1
        return parts

    def written(self, part: Part) -> Written | None:
        """A shard, if it is complete."""
        return read_note(*self._place(part), self._records(part), self._card_sizes(part))

    def write(self, part: Part, members: Members) -> None:
        """Writes a shard.

        Raises:
            UserError: a sample cannot be read or encoded, or the shard cannot be written.
        """
        records = self._records(part)
        pieces = self._pieces(part, records, members)
        write_whole(*self._place(part), records, self._card_sizes(part), pieces, "encode")

    def commit(self, tell: Callable[[int, int], None]) -> None:
        """Waits until all shards are there, whoever writes them, and makes them the output.

        Args:
            tell: told (shards that are there, all shards) while it waits.
        """
        found: dict[str, Written] = {}
        while len(found) < len(self.parts):
            for part in self.parts:
                if part.name not in found and (one := self.written(part)):
                    found[part.name] = one
            tell(len(found), len(self.parts))
            time.sleep(POLL_SECONDS if len(found) < len(self.parts) else 0)
        written = [found[part.name] for part in self.parts]
        shards = [
            Shard(part.name, part.split, one.bytes, one.sha256, len(part.rows))
            for part, one in zip(self.parts, written, strict=True)
        ]
        records, index = np.concatenate([one.records for one in written]), self.source.index
        records["shard"] = np.repeat(np.arange(len(shards)), [shard.samples for shard in shards])
        sources, about = (self._lines, index.datasets, index.skipped), (index.codec, index.buckets, self.encoding)
        write_index(self.writing.shards, shards, records, *sources, "encode", *about)
        self.writing.commit({shard.name for shard in shards} | {*FILES})

    @cached_property
    def _lines(self) -> list[str]:
        with (self.source.index.folder / SOURCES_NAME).open(encoding="utf-8") as file:
            return [line.rstrip("\n") for line in file]

    def _place(self, part: Part) -> tuple[Path, Path]:
        return self.writing.shards / part.name, self.writing.sums / part.name

    def _records(self, part: Part) -> np.ndarray:
        return self.source.index.records[part.rows.start : part.rows.stop].copy()

    def _card_sizes(self, part: Part) -> list[int]:
        return [len(self._card(row)) for row in part.rows]

    def _card(self, row: int) -> bytes:
        record = self.source.index.records[row]
        return card_of(record, self._lines[row], self.source.index.datasets[record["dataset"]].name)

    def _pieces(self, part: Part, records: np.ndarray, members: Members) -> Iterator[bytes]:
        """The samples of a part as they lie in the tar; its records then tell what is there instead of the pictures."""
        for record, row in zip(records, part.rows, strict=True):
            is_encoded = part.split == "train"
            contents = members(row) if is_encoded else [self.source.read(row, view) for view in VIEWS]
            for place, content in enumerate(contents):
                yield from put(record, place, content, LATENTS if is_encoded else KINDS[record["kind"][place]])
            yield from put_card(record, self._card(row))


def digest_of(encoding: Encoding) -> str:
    """16 hex digits that tell encodings apart, and so what was begun with others."""
    return hashlib.sha256(json.dumps(asdict(encoding), sort_keys=True).encode()).hexdigest()[:16]
