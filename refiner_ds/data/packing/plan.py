"""What packing will write, shard by shard: a pure function of checked samples, their splits and the options."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from refiner_ds.chance import generator_of
from refiner_ds.data.index import SPLITS, record_type
from refiner_ds.data.manifest import Sample
from refiner_ds.data.packing.check import Checked
from refiner_ds.data.packing.recode import KEEP, Recoding
from refiner_ds.data.packing.tar import card_of


@dataclass(frozen=True)
class PlannedShard:
    """One tar to write: its name, split, and its records first <= i < first + samples."""

    name: str
    split: str
    first: int
    samples: int


@dataclass(frozen=True, eq=False)
class Plan:
    """Everything that the bytes of all shards depend on.

    Attributes:
        numbers: (records,) int64: which sample each record is.
        records: (records,) of `record_type`; size, crc and kind are those of the picture files. Writing puts those of
            what is packed in their place, which also gives the offsets.
        lines: what sources.jsonl says of each record.
        cards: the content of KEY.json of each record.
    """

    numbers: np.ndarray
    records: np.ndarray
    lines: list[str]
    cards: list[bytes]
    shards: list[PlannedShard]
    recoding: Recoding

    @property
    def digest(self) -> str:
        """16 hex digits; equal plans lead to equal bytes."""
        digest = hashlib.sha256(self.records.tobytes())
        digest.update(self.recoding.identity.encode())
        digest.update(json.dumps([vars(shard) for shard in self.shards]).encode())
        for card in self.cards:
            digest.update(card)
        return digest.hexdigest()[:16]


def make_plan(
    samples: Sequence[Sample],
    checked: Sequence[Checked | None],
    splits: Sequence[str],
    names: Sequence[str],
    order: str,
    seed: int,
    shard_size: int,
    recoding: Recoding = KEEP,
) -> Plan:
    """Plans the shards of the samples that can be used.

    Args:
        checked: by sample; None leaves one out, and moves no other one to another split or before another.
        splits: by sample, "train" or "val".
        names: of the datasets, which `Sample.dataset` numbers.
        order: "shuffled" or "list", see `arranged`.
        shard_size: bytes of pictures after which a new shard starts; an estimate, where they are recoded.
    """
    usable: list[int] = []
    bounds: list[tuple[str, str, int, int]] = []
    for split, numbers in arranged(splits, order, seed).items():
        kept = [number for number in map(int, numbers) if checked[number] is not None]
        cuts = cut([_expected_bytes(_of(checked, number), recoding) for number in kept], shard_size)
        for place, (first, last) in enumerate(cuts):
            bounds.append((f"{split}-{place:06d}.tar", split, len(usable) + first, len(usable) + last))
        usable += kept
    records = _records(samples, checked, usable)
    lines = [_line_of(samples[number]) for number in usable]
    cards = [card_of(record, line, names[record["dataset"]]) for record, line in zip(records, lines, strict=True)]
    shards = []
    for number, (name, split, first, last) in enumerate(bounds):
        records["shard"][first:last] = number
        shards.append(PlannedShard(name, split, first, last - first))
    return Plan(np.array(usable, np.int64), records, lines, cards, shards, recoding)


def arranged(splits: Sequence[str], order: str, seed: int) -> dict[str, np.ndarray]:
    """By split the numbers of its samples in the order of packing.

    "list" is the order of the manifest. "shuffled" is a permutation of the training samples, so that reading shards
    one after the other already mixes them; held-out samples keep the order of the manifest.
    """
    numbers = {split: np.array([i for i, name in enumerate(splits) if name == split], np.int64) for split in SPLITS}
    if order == "shuffled":
        numbers["train"] = generator_of(seed, "pack").permutation(numbers["train"])
    return numbers


def cut(sizes: Sequence[int], shard_size: int) -> list[tuple[int, int]]:
    """(first, last) of groups first <= i < last, each ended by the sample that brings it to shard_size bytes."""
    groups, first, filled = [], 0, 0
    for i, size in enumerate(sizes):
        filled += size
        if filled >= shard_size or i == len(sizes) - 1:
            groups.append((first, i + 1))
            first, filled = i + 1, 0
    return groups


def _records(samples: Sequence[Sample], checked: Sequence[Checked | None], numbers: Sequence[int]) -> np.ndarray:
    digits = max(8, len(str(len(samples) - 1)))
    records = np.zeros(len(numbers), record_type(digits))
    # keys number the manifest, so that they name a sample for good
    records["key"] = [f"{number:0{digits}d}".encode() for number in numbers]
    records["dataset"] = [samples[number].dataset for number in numbers]
    found = [_of(checked, number) for number in numbers]
    for field, name in (
        ("width", "width"),
        ("height", "height"),
        ("size", "sizes"),
        ("crc", "crcs"),
        ("kind", "kinds"),
    ):
        if found:
            records[field] = [getattr(one, name) for one in found]
    return records


def _expected_bytes(one: Checked, recoding: Recoding) -> int:
    return sum(recoding.expected_bytes(one.width, one.height, size) for size in one.sizes)


def _of(checked: Sequence[Checked | None], number: int) -> Checked:
    one = checked[number]
    assert one is not None
    return one


def _line_of(sample: Sample) -> str:
    return json.dumps({"sources": sample.sources, "scene": sample.scene}, sort_keys=True)
