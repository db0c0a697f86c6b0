"""`refiner-ds index`: indexes WebDataset tars that something else wrote."""

import time

from refiner_ds.config.verbs.data import Index
from refiner_ds.data.foreign import index_tars, list_tars, samples_of
from refiner_ds.data.manifest.scenes import parse_pattern, with_scenes
from refiner_ds.data.split import leak_of, parse_val, split_of
from refiner_ds.verbs.indexed import say, say_index
from refiner_ds.verbs.progress import progress_bar


def run(options: Index) -> None:
    """Indexes, and says what came of it."""
    started = time.monotonic()
    val = parse_val(options.val, options.split)
    pattern = parse_pattern(options.scene_pattern) if options.scene_pattern is not None else None
    with progress_bar() as tell:
        listings = list_tars(options.folder, options.workers, tell)
        samples = samples_of(listings)
        if pattern:
            samples = with_scenes(options.folder, samples, pattern)
        splits = split_of(samples, val, options.seed) if samples else []
        if leak := leak_of(samples, splits):
            say(leak)
        index = index_tars(options.folder, listings, samples, splits, options.on_error, options.workers, tell, say)
    say_index(index, time.monotonic() - started)
