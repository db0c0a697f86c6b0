"""`refiner-ds encode`: runs the frozen encoders over shards once, on any number of ranks, and writes encoded shards."""

import os
import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from refiner_ds.config.verbs.benches import BenchCrops
from refiner_ds.config.verbs.data import Encode
from refiner_ds.data.buckets import Bucket, bucket_of, parse_buckets, require_crops, require_table, spelled
from refiner_ds.data.codecs import decode
from refiner_ds.data.encode import Encoded, digest_of
from refiner_ds.data.index import FILE_NAME, read_index
from refiner_ds.data.latents import Crops, Encoding
from refiner_ds.data.manifest import VIEWS
from refiner_ds.data.packing.recode import resized
from refiner_ds.data.packing.scratch import Scratch
from refiner_ds.data.shards import BrokenSample, Shards, open_shards
from refiner_ds.data.stream import STORED
from refiner_ds.errors import UserError
from refiner_ds.refiners.unclip.precision import PRECISIONS
from refiner_ds.refiners.unclip.refiner import UnclipRefiner
from refiner_ds.verbs.device import device_of
from refiner_ds.verbs.indexed import say, say_index
from refiner_ds.verbs.progress import progress_bar
from refiner_ds.verbs.ranks import as_rank
from refiner_ds.world import World, world_from


def run(options: Encode) -> None:
    """Encodes this rank's share of the shards; rank 0 then writes the index, once all ranks have written theirs.

    Raises:
        UserError: on rank 0 for what is wrong with the command; on any rank for its own samples.
    """
    world, started = world_from(os.environ), time.monotonic()
    with as_rank(world):
        if not world.is_main and (options.out / FILE_NAME).exists():
            return  # rank 0 has all it needs, or refuses the folder
        _encode_share(options, world, started)


def _encode_share(options: Encode, world: World, started: float) -> None:
    if options.windows < 1:
        raise UserError(f"--windows {options.windows}: no crop would have an embedding; give 1 or more.")
    scratch = Scratch(options.out, "encode", "encoding")
    if world.is_main:
        scratch.require_free()
    shards, buckets = open_shards(options.shards, tell=say if world.is_main else None), parse_buckets(options.buckets)
    if shards.index.encoding:
        raise UserError(f"shards {shards.location} are encoded already; name the shards of their pictures.")
    require_table(buckets, shards.index.buckets, shards.location)
    device = device_of(options.device, world)
    refiner = UnclipRefiner(options.pretrained_model_name_or_path, options.revision, options.variant)
    require_crops(buckets, refiner.crop_factor)
    encoding = encoding_of(options, shards, refiner, buckets, options.crops, options.flips)
    refiner.place(device, PRECISIONS[options.precision])
    encoder, digest = Encoder(shards, refiner, encoding, buckets, device), digest_of(encoding)
    if not world.is_main:  # rank 0 has the lock
        _write_share(Encoded(shards, encoding, scratch.join(digest)), encoder, world)
        return
    with scratch.locked():
        scratch.require_free(digest)
        if not scratch.is_committed(digest):
            encoded = Encoded(shards, encoding, scratch.begin(digest, say))
            _write_share(encoded, encoder, world)
            with progress_bar() as tell:
                encoded.commit(lambda done, count: tell("shards of all ranks", done, count))
        scratch.remove()
    say_index(read_index(options.out), time.monotonic() - started)


def _write_share(encoded: Encoded, encoder: "Encoder", world: World) -> None:
    """Writes the shards of this rank that no earlier run has completed."""
    mine = [encoded.parts[number] for number in world.share(len(encoded.parts))]
    left = [part for part in mine if encoded.written(part) is None]
    if len(left) < len(mine):
        print(f"rank {world.rank} of {world.size}: {len(mine) - len(left)} of {len(mine)} shards are there already")
    with progress_bar(world.is_main) as tell:
        for number, part in enumerate(left, start=1):
            encoded.write(part, encoder.members)
            tell("encoding (shards of rank 0)", number, len(left))


def encoding_of(
    options: Encode | BenchCrops,
    shards: Shards,
    refiner: UnclipRefiner,
    buckets: tuple[Bucket, ...],
    crops: Crops,
    flips: bool,
) -> Encoding:
    """How these options encode these shards."""
    return Encoding(
        source=shards.index.digest,
        encoders=refiner.encoders_fingerprint,
        scaling_factor=refiner.scaling_factor,
        precision=options.dtype,
        computed_in=options.precision,
        buckets=spelled(buckets),
        crops=crops,
        windows=options.windows,
        flips=flips,
        channels=refiner.latent_channels,
        factor=refiner.crop_factor,
        embedding=refiner.embedding_size,
    )


@dataclass(frozen=True)
class Encoder:
    """Makes the members of each sample for itself, so that they do not depend on what is encoded beside it."""

    shards: Shards
    refiner: UnclipRefiner
    encoding: Encoding
    buckets: tuple[Bucket, ...]
    device: torch.device

    def members(self, row: int) -> Sequence[bytes]:
        """The bytes of a sample's members in VIEWS' order, see `data.latents`.

        Raises:
            UserError: a picture cannot be used, or becomes numbers that the precision does not hold.
        """
        bucket, views = self.bucket(row), self.views(row)
        variants = [views, views.flip(-1)][: self.encoding.variants]
        latents, embeddings = zip(*(self._encoded(variant, bucket) for variant in variants), strict=True)
        by_view = torch.stack(latents).transpose(0, 1)  # (V, variants, crops, c, h, w)
        members = [self._stored(row, numbers) for numbers in by_view]
        members[VIEWS.index("cond")] += self._stored(row, torch.stack(embeddings))
        return members

    def bucket(self, row: int) -> Bucket:
        """That of a sample."""
        record = self.shards.index.records[row]
        return self.buckets[bucket_of(int(record["width"]), int(record["height"]), self.buckets)]

    def views(self, row: int) -> Tensor:
        """(V, 3, H, W) uint8 on the device: the pictures of a sample at its bucket's size, whole latents wide."""
        bucket = self.bucket(row)
        views = torch.from_numpy(np.stack([self._picture(row, view, bucket) for view in VIEWS])).permute(0, 3, 1, 2)
        return views[..., : self.encoding.width(bucket)].to(self.device)

    def _picture(self, row: int, view: str, bucket: Bucket) -> np.ndarray:
        content = self.shards.read(row, view)
        with self.shards.naming(row, view):
            return resized(decode(content, self.shards.index.member(row, view).kind), (bucket,))

    def _encoded(self, views: Tensor, bucket: Bucket) -> tuple[Tensor, Tensor]:
        """Latents (V, crops, c, h, w) and embeddings (windows, d) of (V, 3, H, W)."""
        side = bucket.height
        crops = torch.stack([views[..., x : x + side] for x in self.encoding.offsets(bucket)])
        embeddings = torch.cat([self.refiner.embedding(crop[None, VIEWS.index("cond")]) for crop in crops])
        if self.encoding.crops == "latent":
            return self.refiner.latents(views)[:, None], embeddings
        return torch.stack([self.refiner.latents(crop) for crop in crops], dim=1), embeddings

    def _stored(self, row: int, numbers: Tensor) -> bytes:
        stored = numbers.to(STORED[self.encoding.precision])
        if not stored.isfinite().all():
            raise BrokenSample(
                f"sample {self.shards.index.key(row)} in {self.shards.location} becomes latents with NaN or infinity "
                f"in {self.encoding.precision}; encode with --precision fp32, or with --dtype bf16."
            )
        return stored.cpu().contiguous().view(torch.uint8).numpy().tobytes()
