"""`refiner-ds pack`: packs manifests into shards."""

import time

from refiner_ds.config.verbs import Pack
from refiner_ds.data.index import Dataset, Skipped
from refiner_ds.data.manifest import parse_sources, read_datasets
from refiner_ds.data.pack import Recipe, pack
from refiner_ds.data.split import leak_of, parse_val, split_of
from refiner_ds.verbs.indexed import say, say_index
from refiner_ds.verbs.progress import progress_bar


def run(options: Pack) -> None:
    """Packs, and says what came of it."""
    started = time.monotonic()
    sources = parse_sources([options.manifest, *options.add])
    left_out: list[Skipped] = []

    def skip(number: int, source: str, reason: str) -> None:
        left_out.append(Skipped(sources[number].name, "", source, reason))

    samples = read_datasets(
        sources, scene_pattern=options.scene_pattern, skip=skip if options.on_error == "skip" else None
    )
    is_asked = options.val is not None or options.split is not None
    val = parse_val(options.val or "10", options.split or "last") if is_asked else None
    splits = split_of(samples, val, options.seed)
    if leak := leak_of(samples, splits):
        say(leak)
    datasets = [Dataset(source.name, source.weight, str(source.path), 0) for source in sources]
    recipe = Recipe(options.order, options.seed, options.shard_size, options.on_error)
    with progress_bar() as tell:
        index = pack(samples, splits, datasets, options.out, recipe, options.workers, left_out, tell, say)
    say_index(index, time.monotonic() - started)
