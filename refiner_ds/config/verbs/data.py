"""What the verbs of data sets can be told: drawing, packing, checking, indexing and encoding them."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from tyro.conf import Positional, UseAppendAction, arg

from refiner_ds.config.training import BUCKETS
from refiner_ds.config.verbs.words import OnError, Out, Split


@dataclass(frozen=True)
class Example:
    """Draw a small dataset: a street seen by a rectified stereo pair, and what too few Gaussians show of it."""

    out: Out
    """Folder to write render/, gt/, cond/ and manifest.json into."""
    frames: int = 64
    """Number of triplets of each street."""
    streets: int = 1
    """Number of streets; each has the seed after the one before."""
    shapes: str = "1408x376,640x480"
    """Frame shapes as WIDTHxHEIGHT in pixels, comma-separated; frames take them in turn."""
    baseline: float = 0.6
    """Distance between the two cameras in metres."""
    seed: int = 0
    """Another seed is another street."""
    workers: int = 1
    """Processes that draw; the pictures do not depend on it."""


@dataclass(frozen=True)
class Pack:
    """Pack manifests of render, gt and cond pictures into WebDataset shards with an index; goes on after a kill."""

    manifest: Annotated[Positional[str], arg(metavar="MANIFEST")]
    """What to pack, as [NAME=]PATH[@WEIGHT]: a manifest of any form that shards/README.md tells, or a folder."""
    out: Out
    """Folder to write the shards and index.json into; must not exist or be empty."""
    add: UseAppendAction[tuple[str, ...]] = ()
    """A further manifest for the same shards, as [NAME=]PATH[@WEIGHT]; may be given again and again."""
    val: str | None = None
    """Held out for validation: a number of samples, or a share such as 5%. Where not given, what the manifest itself
    holds out, else 10."""
    split: Split | None = None
    """Which are held out: the last ones of the manifest (where not given), random ones, or whole scenes, so that no
    neighbour of a training sample is among them."""
    scene_pattern: str | None = None
    """Regular expression found in a render's path, whose group names its scene."""
    order: Literal["shuffled", "list"] = "shuffled"
    """Order of training samples in the shards: drawn by the seed, so that reading in order mixes; or the manifest's."""
    seed: int = 0
    """Seed of that order and of what is held out."""
    on_error: OnError = "stop"
    """Where pictures cannot be used: pack nothing and list them, or leave their samples out and say so in the index."""
    shard_size: int = 512 * 1024 * 1024
    """A new shard starts once this many bytes are in one."""
    recode: Literal["keep", "tiff", "npy", "jpeg"] = "keep"
    """How pictures are stored: the bytes of their files; lossless TIFF, of which a crop is decoded alone; bare pixels,
    for plain webdataset too; or JPEG, which changes them. See shards/README.md for size and speed."""
    jpeg_quality: int | None = None
    """Of JPEG, 1 to 100; 95 where not given. Colours are not subsampled."""
    resize: bool = False
    """Store pictures at the size of their bucket, so that training only cuts them; then it needs the same buckets."""
    buckets: str | None = None
    """Those buckets as KEY:WIDTHxHEIGHT, comma-separated; those of training where not given."""
    workers: int = 2
    """Processes that check and write; the shards do not depend on it."""


@dataclass(frozen=True)
class Verify:
    """Read back everything that was packed and check it against the index."""

    shards: Annotated[Positional[str], arg(metavar="SHARDS")]
    """Folder that pack or index wrote into, or its URL."""
    workers: int = 2
    """Processes that read and decode."""
    scratch: Path | None = None
    """Folder for shards of a URL while each is looked at, one for each worker; the system's temporary one where not
    given."""


@dataclass(frozen=True)
class Index:
    """Index WebDataset tars that something else wrote, so that they can be trained on; the tars stay as they are."""

    folder: Annotated[Positional[Path], arg(metavar="FOLDER")]
    """Folder of tars, also in folders below it, with members KEY.render.png, KEY.gt.png and KEY.cond.png each."""
    val: str = "10"
    """Held out for validation: a number of samples, or a share such as 5%."""
    split: Split = "last"
    """Which are held out: the last ones, random ones, or whole scenes, so that no neighbour of a training sample is
    among them."""
    scene_pattern: str | None = None
    """Regular expression found in a render's name in its tar, whose group names its scene."""
    seed: int = 0
    """Seed of what is held out."""
    on_error: OnError = "stop"
    """Where samples cannot be used: index nothing and list them, or leave them out and say so in the index."""
    workers: int = 2
    """Processes that read and decode."""


@dataclass(frozen=True)
class Encode:
    """Encode the pictures of shards once, on any number of ranks; training then needs neither VAE nor CLIP."""

    shards: Annotated[Positional[str], arg(metavar="SHARDS")]
    """Shards of pictures: a folder, or its URL."""
    out: Out
    """Folder to write the encoded shards into, with the held-out pictures as they are; must not exist or be empty.
    Ranks on several nodes need one that all of them see."""
    pretrained_model_name_or_path: str
    """Base checkpoint whose VAE and image encoder are used; training refuses any other one."""
    revision: str | None = None
    """Branch, tag or commit of the base, where that is a hub id."""
    variant: str | None = None
    """Take the base's weights of this variant, such as fp16."""
    buckets: str = BUCKETS
    """Aspect buckets as KEY:WIDTHxHEIGHT, to which pictures are resized; training takes the same."""
    crops: Literal["latent", "windows"] = "latent"
    """latent: encode whole pictures, and let training cut columns of latents, each crop with the embedding of the
    window nearest to it. windows: encode fixed windows from their pixels alone: each crop is exact, and there are
    few."""
    windows: int = 4
    """Windows of each picture, evenly spaced from left to right; a square picture has one."""
    flips: bool = False
    """Encode the mirrored pictures too, so that training can flip; takes twice the time and the room."""
    dtype: Literal["fp16", "bf16"] = "fp16"
    """Precision of the stored numbers."""
    precision: Literal["fp32", "fp16", "bf16"] = "fp32"
    """Precision that the encoders compute in."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """auto takes a GPU if there is one."""
