"""MosaicML Streaming as a process of the bench: MDS shards, read through its dataset in torch's loader."""

from typing import Any

from streaming import MDSWriter, StreamingDataset
from torch.utils.data import DataLoader

from refiner_ds.bench.job import Job
from refiner_ds.bench.peers.samples import Transform, contents, epochs_of, shard_bytes, transform_of
from refiner_ds.bench.window import Start, main
from refiner_ds.data.manifest import VIEWS


class Triplets(StreamingDataset):
    """Samples whose columns are the bytes of the three views."""

    def __init__(self, transform: Transform, **options: Any) -> None:
        super().__init__(**options)
        self.transform = transform

    def __getitem__(self, at: Any) -> Any:
        return self.transform(super().__getitem__(at))


def write(job: Job) -> int:
    """Shards without compression and hashes, as it does unless told otherwise."""
    columns = dict.fromkeys(VIEWS, "bytes")
    with MDSWriter(out=job.folder, columns=columns, size_limit=shard_bytes(job), progress_bar=False) as writer:
        count = 0
        for sample in contents(job):
            writer.write(sample)
            count += 1
    return count


def read(job: Job) -> Start:
    """Local shards, shuffled, another epoch in each lap."""
    dataset = Triplets(
        transform_of(job), local=job.folder, shuffle=True, shuffle_seed=job.seed, batch_size=job.batch_size
    )
    loader: DataLoader = DataLoader(dataset, job.batch_size, num_workers=job.workers, persistent_workers=True)
    return epochs_of(loader)


if __name__ == "__main__":
    main(read, write)
