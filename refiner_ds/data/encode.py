"""Writing encoded shards: one for each shard of pictures, in any order and by any number of processes, then the index.

What is done is kept in `.OUT.encoding/plan-DIGEST` beside OUT: a shard has its name once it is whole and synced, and
then a note of what it holds. So a killed run goes on, and whoever writes the index knows when all shards are there.
"""

import functools
import hashlib
import json
import os
import platform
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import NamedTuple

import google_crc32c
import numpy as np

from refiner_ds.data.index import FILES, KINDS, SOURCES_NAME, SPLITS, Index, Shard, member_name, read_index, write_index
from refiner_ds.data.latents import LATENTS, Encoding
from refiner_ds.data.manifest import VIEWS
from refiner_ds.data.packing.tar import END, card_of, header_of, padding_of, place_members
from refiner_ds.data.shards import Shards
from refiner_ds.errors import UserError
from refiner_ds.folders import file_made_whole, require_free, sync

MADE = ("size", "crc", "kind")
"""Fields of a record that differ from those of its pictures; the offsets follow from them."""
POLL_SECONDS = 0.5

Encode = Callable[[int], Sequence[bytes]]
"""The members of the training sample in a row of the index, by view in VIEWS' order."""


class Part(NamedTuple):
    """A shard to write: its name, its split, and the rows of the source's index that it holds."""

    name: str
    split: str
    rows: range


@dataclass(frozen=True, eq=False)
class Encoded:
    """Encoded shards while they are written: training samples encoded, held-out pictures as they are."""

    source: Shards
    out: Path
    encoding: Encoding

    @property
    def folder(self) -> Path:
        """Where they are written before they are all there."""
        digest = hashlib.sha256(json.dumps(asdict(self.encoding), sort_keys=True).encode()).hexdigest()[:16]
        return self._scratch / f"plan-{digest}"

    @property
    def parts(self) -> list[Part]:
        """A part for each shard of the source, in the order of the index, numbered by split."""
        parts, first = [], 0
        numbers = dict.fromkeys(SPLITS, 0)
        for shard in self.source.index.shards:
            name = f"{shard.split}-{numbers[shard.split]:06d}.tar"
            parts.append(Part(name, shard.split, range(first, first + shard.samples)))
            first, numbers[shard.split] = first + shard.samples, numbers[shard.split] + 1
        return parts

    def is_written(self, part: Part) -> bool:
        """Whether a shard is complete."""
        note = self._note(part)
        try:
            return note is not None and (self.folder / part.name).stat().st_size == note["bytes"]
        except OSError:
            return False

    def write(self, part: Part, encode: Encode) -> None:
        """Writes a shard.

        Raises:
            UserError: a sample cannot be read, or the shard cannot be written.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        partial = self.folder / f"{part.name}.{platform.node()}-{os.getpid()}.partial"
        digest, size, records = hashlib.sha256(), 0, self.source.index.records[part.rows.start : part.rows.stop].copy()
        try:
            with partial.open("wb") as file:
                for piece in self._pieces(part, records, encode):
                    digest.update(piece)
                    size += file.write(piece)
                file.flush()
                os.fsync(file.fileno())
            partial.replace(self.folder / part.name)
            sync(self.folder)
            note = {"sha256": digest.hexdigest(), "bytes": size, **{name: records[name].tolist() for name in MADE}}
            with file_made_whole(self._note_path(part)) as path:
                path.write_text(json.dumps(note), encoding="utf-8")
        except OSError as error:
            raise UserError(
                f"shard {self.folder / part.name} cannot be written ({error.strerror}); make room or mend the folder "
                "and encode again, which goes on from here."
            ) from error
        finally:
            partial.unlink(missing_ok=True)

    def commit(self, tell: Callable[[int, int], None]) -> Index:
        """Waits until all shards are there, whoever writes them, and makes the folder the output.

        Args:
            tell: told (shards that are there, all shards) while it waits.

        Raises:
            UserError: the output folder is taken.
        """
        parts = self.parts
        while (done := sum(map(self.is_written, parts))) < len(parts):
            tell(done, len(parts))
            time.sleep(POLL_SECONDS)
        tell(done, len(parts))
        index = self.source.index
        notes = [self._note(part) or {} for part in parts]
        records = index.records.copy()
        for part, note in zip(parts, notes, strict=True):
            own = records[part.rows.start : part.rows.stop]
            for name in MADE:
                own[name] = note[name]
            place_members(own, [len(self._card(row)) for row in part.rows])
        shards = [
            Shard(part.name, part.split, note["bytes"], note["sha256"], len(part.rows))
            for part, note in zip(parts, notes, strict=True)
        ]
        records["shard"] = np.repeat(np.arange(len(shards)), [len(part.rows) for part in parts])
        sources, about = (self._lines, index.datasets, index.skipped), (index.codec, index.buckets, self.encoding)
        write_index(self.folder, shards, records, *sources, "encode", *about)
        names = {part.name for part in parts} | {*FILES}
        for path in self.folder.iterdir():
            if path.name not in names:
                path.unlink()
        sync(self.folder)
        require_free(self.out, "encoding would mix two data sets")
        self.folder.replace(self.out)
        sync(self.out.resolve().parent)
        shutil.rmtree(self._scratch, ignore_errors=True)
        return read_index(self.out)

    @property
    def _scratch(self) -> Path:
        out = self.out.resolve()
        return out.with_name(f".{out.name}.encoding")

    @functools.cached_property
    def _lines(self) -> list[str]:
        return (self.source.index.folder / SOURCES_NAME).read_text(encoding="utf-8").splitlines()

    def _card(self, row: int) -> bytes:
        record = self.source.index.records[row]
        return card_of(record, self._lines[row], self.source.index.datasets[record["dataset"]].name)

    def _pieces(self, part: Part, records: np.ndarray, encode: Encode) -> Iterator[bytes]:
        """The tar of a part; its records then tell what is there instead of the pictures."""
        for record, row in zip(records, part.rows, strict=True):
            is_encoded = part.split == "train"
            members = encode(row) if is_encoded else [self.source.read(row, view) for view in VIEWS]
            for place, content in enumerate(members):
                kind = KINDS.index(LATENTS) if is_encoded else record["kind"][place]
                for name, value in zip(MADE, (len(content), google_crc32c.value(content), kind), strict=True):
                    record[name][place] = value
                yield from (header_of(member_name(record, place), len(content)), content, padding_of(len(content)))
            card = self._card(row)
            yield from (header_of(f"{record['key'].decode()}.json", len(card)), card, padding_of(len(card)))
        yield END

    def _note_path(self, part: Part) -> Path:
        return self.folder / f"{part.name}.json"

    def _note(self, part: Part) -> dict | None:
        try:
            return dict(json.loads(self._note_path(part).read_text(encoding="utf-8")))
        except (OSError, ValueError):
            return None
