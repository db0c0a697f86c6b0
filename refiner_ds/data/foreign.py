"""Indexing WebDataset tars that something else wrote: the tars stay as they are and get an index beside them."""

import json
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

import numpy as np

from refiner_ds.data.index import FILE_NAME, SPLITS, Dataset, Index, Shard, Skipped, record_type, write_index
from refiner_ds.data.manifest import VIEWS, Sample
from refiner_ds.data.packing.check import Checked
from refiner_ds.data.packing.crew import Tell, crew_of, tell_nobody
from refiner_ds.data.packing.scan import Group, Listing, Scan, list_tar, scan_tar
from refiner_ds.errors import UserError

DATASET = "tars"
"""Name of the dataset that foreign tars are."""
PROBLEMS_NAME = "index.problems.txt"
COMPRESSED = (".tgz", ".tar.gz", ".tar.bz2", ".tar.xz", ".tar.zst")


def list_tars(folder: Path, workers: int, tell: Tell = tell_nobody) -> list[Listing]:
    """Reads the headers of every tar in a folder and below it, in the order of their names.

    Raises:
        UserError: there are none, some are compressed, or the folder has an index that `pack` wrote.
    """
    _require_indexable(folder)
    names = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*.tar"))
    compressed = sorted(path.name for path in folder.rglob("*") if path.name.endswith(COMPRESSED))
    if compressed:
        raise UserError(
            f"{folder} holds {len(compressed)} compressed tars ({compressed[0]}), in which no sample can be read "
            "without all before it; decompress them (pictures are compressed already), or move them away."
        )
    if not names:
        raise UserError(f"{folder} holds no .tar, so there is nothing to index; name a folder of WebDataset shards.")
    listings: list[Listing] = []
    with crew_of(workers) as crew:
        for listing in crew.results(list_tar, ((folder, name) for name in names)):
            listings.append(listing)
            tell("listing tars", len(listings), len(names), 0)
    return listings


def _require_indexable(folder: Path) -> None:
    if folder.is_dir() and not os.access(folder, os.W_OK):
        raise UserError(
            f"{folder} cannot be written, so its index would have no place; make it writable, or link its tars into "
            "a folder that is."
        )
    try:
        content = json.loads((folder / FILE_NAME).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return
    except (OSError, ValueError):
        content = None
    if not isinstance(content, dict) or content.get("made_by") != "index":
        raise UserError(
            f"{folder} has an {FILE_NAME} that `refiner-ds index` did not write, and it would be lost; "
            "train on the folder as it is, or take that file away."
        )


def samples_of(listings: Sequence[Listing]) -> list[Sample]:
    """All samples of all tars, also those that cannot be used, for the rules that divide them."""
    groups = [group for listing in listings for group in listing.groups]
    return [Sample({}, {view: _name_of(group, view) for view in VIEWS}) for group in groups]


def _name_of(group: Group, view: str) -> str:
    return group.places[view].name if view in group.places else group.key


@dataclass(frozen=True)
class _Found:
    """A sample of all tars: its number among all, its tar's, and what to index or why not to."""

    number: int
    tar: int
    group: Group
    found: Checked | str


def index_tars(
    folder: Path,
    listings: Sequence[Listing],
    samples: Sequence[Sample],
    splits: Sequence[str],
    on_error: str,
    workers: int,
    tell: Tell = tell_nobody,
    say: Callable[[str], None] = print,
) -> Index:
    """Decodes and hashes listed tars and writes their index beside them; a tar of both splits is a shard of each.

    Args:
        samples: what `samples_of` gave, perhaps with scenes.
        splits: by sample, "train" or "val"; a sample that is left out moves no other one.
        on_error: "stop" writes nothing while a sample cannot be used, "skip" leaves it out and says so in the index.
        say: told what a person should know.

    Raises:
        UserError: samples or tars cannot be used, or none is left to train on.
    """
    _say_oddities(listings, say)
    scans = _scanned(folder, listings, len(samples), workers, tell)
    found = list(_found(listings, scans))
    skipped = list(_skipped(listings, found))
    report = folder / PROBLEMS_NAME
    report.unlink(missing_ok=True)
    if skipped and on_error == "stop":
        report.write_text("".join(f"{one.source}: {one.reason}\n" for one in skipped), encoding="utf-8")
        raise UserError(_refusal(skipped, len(found), report))
    usable = {
        split: [one for one in found if splits[one.number] == split and isinstance(one.found, Checked)]
        for split in SPLITS
    }
    if not usable["train"]:
        raise UserError(
            f"{folder} holds no sample to train on ({len(found)} in all, {len(skipped)} that cannot be used): members "
            "must be named KEY.render.png, KEY.gt.png and KEY.cond.png; mend them, or hold out fewer."
        )
    shards = [
        Shard(listings[tar].name, split, scans[tar].bytes, scans[tar].sha256, len(list(members)))
        for split, ones in usable.items()
        for tar, members in groupby(ones, lambda one: one.tar)
    ]
    kept = [one for ones in usable.values() for one in ones]
    pairs = ((samples[one.number].sources, samples[one.number].scene) for one in kept)
    lines = (json.dumps({"sources": sources, "scene": scene}, sort_keys=True) for sources, scene in pairs)
    dataset = Dataset(DATASET, 1.0, "", len(kept))
    return write_index(folder, shards, _records(kept, shards), lines, [dataset], skipped, made_by="index")


def _scanned(folder: Path, listings: Sequence[Listing], total: int, workers: int, tell: Tell) -> list[Scan]:
    scans: list[Scan] = []
    done = size = 0
    with crew_of(workers) as crew:
        for scan in crew.results(scan_tar, ((folder, listing) for listing in listings)):
            scans.append(scan)
            done, size = done + len(scan.found), size + scan.bytes
            tell("checking", done, total, size)
    return scans


def _found(listings: Sequence[Listing], scans: Sequence[Scan]) -> Iterator[_Found]:
    number = 0
    for tar, (listing, scan) in enumerate(zip(listings, scans, strict=True)):
        for group, found in zip(listing.groups, scan.found, strict=True):
            yield _Found(number, tar, group, found)
            number += 1


def _skipped(listings: Sequence[Listing], found: Sequence[_Found]) -> Iterator[Skipped]:
    for listing in listings:
        if listing.problem:
            yield Skipped(DATASET, "", listing.name, listing.problem)
    for one in found:
        if isinstance(one.found, str):
            yield Skipped(DATASET, one.group.key, listings[one.tar].name, one.found)


def _refusal(skipped: Sequence[Skipped], total: int, report: Path) -> str:
    tars = sum(not one.key for one in skipped)
    named = "; ".join(f"{one.source}: {one.reason}" for one in skipped[:5]) + ("; ..." if len(skipped) > 5 else ".")
    return (
        f"{len(skipped) - tars} of {total} samples and {tars} tars cannot be used, and none is skipped silently "
        f"({report} lists all): {named} Mend them, or leave them out with --on_error skip."
    )


def _say_oddities(listings: Sequence[Listing], say: Callable[[str], None]) -> None:
    if others := sum(listing.others for listing in listings):
        say(f"{others} members are no KEY.VIEW.EXTENSION of a picture and are not used")
    keys = [group.key.rpartition("/")[2] for listing in listings for group in listing.groups]
    if dotted := sum("." in key for key in keys):
        say(
            f"{dotted} keys hold a dot, at which plain webdataset cuts them and may merge samples; here they stay whole"
        )


def _records(kept: Sequence[_Found], shards: Sequence[Shard]) -> np.ndarray:
    keys = [one.group.key.encode() for one in kept]
    records = np.zeros(len(kept), record_type(max(map(len, keys))))
    records["key"] = keys
    records["shard"] = np.repeat(np.arange(len(shards)), [shard.samples for shard in shards])
    records["offset"] = [[one.group.places[view].offset for view in VIEWS] for one in kept]
    checked = [one.found for one in kept]
    for field, name in (("width",) * 2, ("height",) * 2, ("size", "sizes"), ("crc", "crcs"), ("kind", "kinds")):
        records[field] = [getattr(one, name) for one in checked]
    return records
