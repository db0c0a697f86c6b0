"""`refiner-ds pack`: packs a manifest into shards."""

from refiner_ds.config.verbs import Pack
from refiner_ds.data.manifest import read_manifest
from refiner_ds.data.pack import pack
from refiner_ds.verbs.progress import progress_bar


def run(options: Pack) -> None:
    """Packs, and says what came of it."""
    samples = read_manifest(options.manifest)
    with progress_bar() as tell:
        index = pack(samples, options.out, options.val, options.shard_size, options.workers, tell)
    for split in ("train", "val"):
        shards = [shard for shard in index.shards if shard.split == split]
        size = sum(shard.bytes for shard in shards) / 1e6
        print(f"{split}: {len(index.samples(split))} samples in {len(shards)} shards, {size:.1f} MB")
    print(f"shards and index in {options.out}, digest {index.digest}")
