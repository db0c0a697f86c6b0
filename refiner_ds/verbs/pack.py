"""`refiner-ds pack`: packs manifests into shards."""

import time

from refiner_ds.config.training import BUCKETS
from refiner_ds.config.verbs.data import Pack
from refiner_ds.data.buckets import parse_buckets
from refiner_ds.data.index import Dataset, Skipped
from refiner_ds.data.manifest import parse_sources, read_datasets
from refiner_ds.data.pack import Recipe, pack
from refiner_ds.data.packing.recode import Recoding
from refiner_ds.data.split import leak_of, parse_val, split_of
from refiner_ds.errors import UserError
from refiner_ds.verbs.indexed import say, say_index
from refiner_ds.verbs.progress import progress_bar


def run(options: Pack) -> None:
    """Packs, and says what came of it."""
    started, recoding = time.monotonic(), _recoding_of(options)
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
    recipe = Recipe(options.order, options.seed, options.shard_size, options.on_error, recoding)
    with progress_bar() as tell:
        index = pack(samples, splits, datasets, options.out, recipe, options.workers, left_out, tell, say)
    say_index(index, time.monotonic() - started)


def _recoding_of(options: Pack) -> Recoding:
    """What becomes of the pictures.

    Raises:
        UserError: flags contradict each other, or a number is out of range.
    """
    quality = 95 if options.jpeg_quality is None else options.jpeg_quality
    if options.jpeg_quality is not None and options.recode != "jpeg":
        raise UserError(
            f"--jpeg_quality {quality} has no effect with --recode {options.recode}, which stores no JPEG; "
            "give --recode jpeg, or leave it out."
        )
    if not 1 <= quality <= 100:
        raise UserError(f"--jpeg_quality {quality} is no quality, so nothing can be encoded; give 1 to 100.")
    if options.resize and options.recode == "keep":
        raise UserError(
            "--resize has no effect with --recode keep, which stores the bytes of the files; "
            "give --recode tiff, npy or jpeg, or leave it out."
        )
    if options.buckets is not None and not options.resize:
        raise UserError(
            f"--buckets {options.buckets} has no effect without --resize, as pictures keep their size; "
            "give --resize, or leave it out and name the buckets in training."
        )
    return Recoding(options.recode, quality, parse_buckets(options.buckets or BUCKETS) if options.resize else ())
