"""The baseline's loader as a process of the bench: loose files and a map-style dataset, in the process that trains."""

import json
from pathlib import Path

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from refiner_ds.bench.job import Job
from refiner_ds.bench.recipe import recipe
from refiner_ds.bench.window import Start, main
from refiner_ds.data.buckets import Bucket, parse_buckets


class Triplets(Dataset):
    """Render, gt and cond as the baseline's dataset hands them on, each (3, H, H) fp32 in [-1, 1]."""

    def __init__(self, files: list[dict[str, str]], bucket: Bucket) -> None:
        self.files, self.bucket = files, bucket

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, number: int) -> dict[str, Tensor]:
        return recipe(self.files[number], self.bucket)


def read(job: Job) -> Start:
    """The loose files in a random order, another one in each lap."""
    samples = json.loads(Path(job.sources).read_text(encoding="utf-8"))
    files = [{view: path for view, (path, *_) in sample.items()} for sample in samples]
    torch.manual_seed(job.seed)
    loader: DataLoader = DataLoader(Triplets(files, *parse_buckets(job.bucket)), job.batch_size, shuffle=True)
    return lambda: (batch["render"] for batch in loader)


if __name__ == "__main__":
    main(read)
