"""What is read: the samples of one bucket as loose files, as shards of ours and in each peer's own format."""

import json
import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path

from PIL import Image

from refiner_ds.bench.encoded import write_encoded
from refiner_ds.bench.storage import KEPT, Storage, write_shards
from refiner_ds.data.buckets import Bucket, bucket_of
from refiner_ds.data.index import Index, read_index
from refiner_ds.data.manifest import VIEWS, Sample
from refiner_ds.data.packing.crew import Tell


def of_one_bucket(samples: Sequence[Sample], buckets: Sequence[Bucket]) -> tuple[list[Sample], Bucket]:
    """The samples of the bucket that most of them are of, and the bucket."""
    numbers = [_bucket_of(sample, buckets) for sample in samples]
    ((most, _),) = Counter(numbers).most_common(1)
    return [sample for sample, number in zip(samples, numbers, strict=True) if number == most], buckets[most]


def _bucket_of(sample: Sample, buckets: Sequence[Bucket]) -> int:
    with Image.open(sample.files["render"]) as picture:
        return bucket_of(*picture.size, tuple(buckets))


class Material:
    """The samples of a bench in a folder; what is made of them is made when it is first asked for."""

    def __init__(self, folder: Path, samples: Sequence[Sample], count: int, bucket: Bucket, tell: Tell) -> None:
        """Links `count` samples into the folder, which takes those given in turn."""
        self.folder, self.bucket, self._tell = folder, bucket, tell
        self.samples = [self._linked(number, samples[number % len(samples)]) for number in range(count)]

    @cached_property
    def files(self) -> Path:
        """JSON list of the samples as loose files: by view (path, offset, bytes, kind)."""
        listed = []
        for sample in self.samples:
            sizes = {view: path.stat().st_size for view, path in sample.files.items()}
            listed.append({view: (str(path), 0, sizes[view], path.suffix[1:]) for view, path in sample.files.items()})
        return self._saved("files.json", listed)

    def shards(self, storage: Storage) -> Path:
        """Folder of our shards."""
        out = self.folder / "shards" / storage.name
        if not out.exists():
            out.parent.mkdir(exist_ok=True)
            if storage.crops:
                write_encoded(self.shards(replace(storage, crops=None)), out, storage.crops, self.bucket)
            else:
                write_shards(self.samples, out, storage, self.bucket, os.cpu_count() or 1, self._tell)
        return out

    def members(self, storage: Storage) -> Path:
        """JSON list of the same bytes as in our shards, like `files`; of pictures that are kept, the files."""
        if storage == KEPT:
            return self.files
        path, index = self.folder / f"{storage.name}.json", read_index(self.shards(storage))
        if not path.exists():
            rows = range(len(index))
            self._saved(path.name, [{view: _member(index, row, view) for view in VIEWS} for row in rows])
        return path

    def _saved(self, name: str, listed: list) -> Path:
        path = self.folder / name
        path.write_text(json.dumps(listed), encoding="utf-8")
        return path

    def _linked(self, number: int, sample: Sample) -> Sample:
        files = {}
        for view, source in sample.files.items():
            files[view] = self.folder / "files" / view / f"{number:06d}{source.suffix}"
            files[view].parent.mkdir(parents=True, exist_ok=True)
            files[view].symlink_to(source.resolve())
        return Sample(files, {view: str(path) for view, path in files.items()})


def _member(index: Index, row: int, view: str) -> tuple[str, int, int, str]:
    member = index.member(row, view)
    return str(index.folder / member.shard), member.offset, member.size, member.kind


def megabytes_of(folder: Path) -> float:
    """What lies in a folder, in MB."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) / 1e6
