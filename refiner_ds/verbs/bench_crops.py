"""`refiner-ds bench crops`: whether crops may be cut from latents, for one's own base and pictures."""

from collections.abc import Iterator
from datetime import date

import numpy as np
import torch
from torch.nn.functional import cosine_similarity

from refiner_ds.bench.crops import Crop, as_json, as_markdown, compare
from refiner_ds.chance import generator_of
from refiner_ds.config.verbs.benches import BenchCrops
from refiner_ds.data.buckets import parse_buckets, require_crops, require_table
from refiner_ds.data.manifest import VIEWS
from refiner_ds.data.shards import open_shards
from refiner_ds.data.stream import STORED
from refiner_ds.errors import UserError
from refiner_ds.refiners.unclip.encode import Features
from refiner_ds.refiners.unclip.options import Recipe
from refiner_ds.refiners.unclip.precision import PRECISIONS
from refiner_ds.refiners.unclip.refiner import UnclipRefiner
from refiner_ds.verbs.device import device_of
from refiner_ds.verbs.encode import Encoder, encoding_of
from refiner_ds.verbs.measured import command_of, machine_of, prepare_files, tell
from refiner_ds.verbs.progress import progress_bar
from refiner_ds.versions import versions
from refiner_ds.world import World


def run(options: BenchCrops) -> None:
    """Measures, and prints the page."""
    for name in ("samples", "windows"):
        if getattr(options, name) < 1:
            raise UserError(f"--{name} {getattr(options, name)} leaves nothing to compare; give 1 or more.")
    prepare_files(options.json, options.markdown)
    shards, buckets = open_shards(options.shards), parse_buckets(options.buckets)
    if shards.index.encoding:
        raise UserError(f"shards {shards.location} are encoded already; name the shards of their pictures.")
    require_table(buckets, shards.index.buckets, shards.location)
    device = device_of(options.device, World())
    refiner = UnclipRefiner(options.pretrained_model_name_or_path, options.revision, options.variant)
    require_crops(buckets, refiner.crop_factor)
    encoding = encoding_of(options, shards, refiner, buckets, "latent", flips=False)
    encoder = Encoder(shards, refiner, encoding, buckets, device)
    rows = _wide(encoder, options.samples)
    refiner.place(device, PRECISIONS[options.precision], whole=True)
    refiner.prepare_training(Recipe())
    with progress_bar() as telling:
        crops = []
        for crop in _crops(encoder, rows, options):
            crops.append(crop)
            telling("comparing", len(crops), len(rows))
    found = compare(crops)
    about = {
        "command": command_of("bench crops", options),
        "machine": machine_of(device),
        "date": date.today().isoformat(),
        "what": f"a crop of each of {len(rows)} samples, all three views, computed in {options.precision}, stored in "
        f"{options.dtype}",
        "versions": versions(),
    }
    tell(as_markdown(found, about), as_json(found, about), options.json, options.markdown)


def _wide(encoder: Encoder, count: int) -> list[int]:
    """Rows of `count` training samples, as far as there are so many, that have more than one crop.

    Raises:
        UserError: there is none.
    """
    shards = encoder.shards
    wide = [
        row for row in shards.index.rows("train").tolist() if len(encoder.encoding.columns(encoder.bucket(row))) > 1
    ]
    if not wide:
        raise UserError(
            f"shards {shards.location} hold square pictures alone by --buckets, whose only crop is the picture itself, "
            "so there is nothing to compare; both --crops of encode are exact for them."
        )
    return [wide[number] for number in np.linspace(0, len(wide) - 1, min(count, len(wide))).round().astype(int)]


@torch.no_grad()
def _crops(encoder: Encoder, rows: list[int], options: BenchCrops) -> Iterator[Crop]:
    """A crop of each, by chance."""
    refiner, encoding = encoder.refiner, encoder.encoding
    for position, row in enumerate(rows):
        bucket, views = encoder.bucket(row), encoder.views(row)
        columns = encoding.columns(bucket)
        column = columns[int(generator_of(options.seed, "crop", position).integers(0, len(columns)))]
        offset, side = column * encoding.factor, bucket.height
        stored = STORED[encoding.precision]
        cut = refiner.latents(views)[..., column : column + side // encoding.factor].to(stored).float()
        exact = refiner.latents(views[..., offset : offset + side])
        near = encoding.offsets(bucket)[encoding.window(bucket, column)]
        reference = views[None, VIEWS.index("cond")]
        nearest, own = (refiner.embedding(reference[..., left : left + side]) for left in (near, offset))
        losses = []
        for latents, embedding in ((cut, nearest), (exact, own)):
            by_view = {view: latents[None, place].contiguous() for place, view in enumerate(VIEWS)}
            features = Features(**by_view, embedding=embedding, positions=(position,))
            dtype = PRECISIONS[options.precision]
            losses.append(float(refiner.loss(refiner.network, dtype, features, options.seed)["loss"]))
        yield Crop(
            cut.cpu(),
            exact.cpu(),
            (column > 0, column < columns[-1]),
            float(cosine_similarity(nearest, own)),
            (losses[0], losses[1]),
        )
