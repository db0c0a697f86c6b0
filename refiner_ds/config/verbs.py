"""What each verb can be told: one dataclass a verb, whose fields are its flags and whose docstrings are its help."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from tyro.conf import Positional, UseAppendAction, arg

from refiner_ds.config.training import BUCKETS

Split = Literal["last", "random", "scene"]
OnError = Literal["stop", "skip"]

Out = Annotated[Positional[Path], arg(metavar="OUT")]


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
class Base:
    """Make a base checkpoint in the layout of stable-diffusion-2-1-unclip, without downloading anything."""

    out: Out
    """Folder to write the checkpoint into; must not exist or be empty."""
    size: Literal["tiny", "full"] = "tiny"
    """tiny: every part small, the VAE trained on pictures; full: the real shapes of SD 2.1 unCLIP, random weights."""
    pictures: Path | None = None
    """Folder of pictures that the tiny VAE is trained on; example streets are drawn when it is not given."""
    vae_steps: int = 2000
    """Optimizer steps of the tiny VAE."""
    seed: int = 0
    """Seed of all weights."""


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


@dataclass(frozen=True)
class Export:
    """Write a checkpoint as a diffusers pipeline in safetensors, or its low-rank updates alone; needs no GPU."""

    checkpoint: Annotated[Positional[Path], arg(metavar="CHECKPOINT")]
    """A checkpoint-STEP folder, a run's output folder for its newest whole checkpoint, or an exported adapter, which is
    merged into its base."""
    out: Out
    """Folder to write into; must not exist or be empty unless an earlier export in it is to be replaced."""
    weights: Literal["auto", "ema", "trained"] = "auto"
    """ema: the moving average of the weights; trained: the weights themselves; auto: the average if there is one."""
    dtype: Literal["fp32", "fp16", "bf16"] = "fp32"
    """Precision of all weights in the folder; whoever loads it may choose another one still."""
    lora: Literal["merged", "adapter"] = "merged"
    """Of low-rank updates. merged: a pipeline like any other; adapter: only what was trained, in a small folder
    that names its base."""
    replace: bool = False
    """Take the place of an earlier export in OUT, once the new one is whole."""
    pretrained_model_name_or_path: str | None = None
    """Where the base of the run is now, if it has moved: a folder, or a hub id."""
    revision: str | None = None
    """Branch, tag or commit of that base, where it is a hub id."""
    variant: str | None = None
    """Take that base's weights of this variant, such as fp16."""


@dataclass(frozen=True)
class ImportLegacy:
    """Make a refiner of what GaussianRefiner's public training script has saved."""

    legacy: Annotated[Positional[Path], arg(metavar="LEGACY")]
    """Folder with unet/diffusion_pytorch_model.bin (or .safetensors), that unet folder, or the file itself."""
    out: Out
    """Folder to write the pipeline into; must not exist or be empty."""
    pretrained_model_name_or_path: str
    """Base that it was trained from, for the frozen parts: a folder, or a hub id."""
    revision: str | None = None
    """Branch, tag or commit of the base, where that is a hub id."""
    variant: str | None = None
    """Take the base's weights of this variant, such as fp16."""


@dataclass(frozen=True)
class Repair:
    """Repair a picture, a folder of them or a manifest with an exported refiner; skips what is done."""

    model: Path
    """Folder that export wrote, a pipeline or an adapter."""
    output: Path
    """Folder for the repaired pictures; they keep the renders' names, below the folder that all renders share, and end
    in .png. For one render also the picture to write: .png, .jpg or .webp."""
    render: Path | None = None
    """Degraded render, or a folder of renders, with all folders in it."""
    cond: tuple[Path, ...] = ()
    """Reference photograph of the render's size from a nearby view, or several for one render; for a folder of renders
    the folder that has a reference under the same relative path for each."""
    manifest: Path | None = None
    """JSON file with aligned lists render and cond, instead of --render and --cond."""
    num_inference_steps: int | None = None
    """Sampling steps; the refiner's own where not given, 20 unless its folder says otherwise."""
    guidance_scale: float | None = None
    """Guidance from the bad to the good prompt, the refiner's own (10) where not given; 1 is none, at half the time."""
    scheduler: str | None = None
    """Sampler, by its class name in diffusers, e.g. DDIMScheduler; the refiner's own where not given."""
    tile_size: int | None = None
    """Work on larger pictures in overlapping tiles of so many pixels a side, in less memory; all at once where not
    given."""
    seed: int = 0
    """Seed of the starting noise, drawn per picture."""
    device: Literal["auto", "cuda", "cpu"] = "auto"
    """Where to compute; auto takes a GPU where there is one, under a launcher one for each rank."""


@dataclass(frozen=True)
class Evaluate:
    """Compare render and repaired against gt: metrics.json and a report with pictures."""

    model: Path
    """Folder that export wrote, a pipeline or an adapter."""
    output: Path
    """Folder for report.html, metrics.json and pictures.png."""
    manifest: Path | None = None
    """JSON file with aligned lists render, gt and cond."""
    shards: str | None = None
    """Or a folder that pack wrote, or its URL, whose validation split is taken."""
    shard_cache: Path | None = None
    """Folder on a disk of this machine for shards that lie at a URL."""
    shard_cache_limit: str | None = None
    """Bytes that this folder may take, such as 200GB."""
    run: Path | None = None
    """Output folder of the training run, whose loss curve goes into the report."""
    num_inference_steps: int | None = None
    """Sampling steps; the refiner's own where not given, 20 unless its folder says otherwise."""
    guidance_scale: float | None = None
    """Guidance from the bad to the good prompt, the refiner's own (10) where not given; 1 is none, at half the time."""
    scheduler: str | None = None
    """Sampler, by its class name in diffusers, e.g. DDIMScheduler; the refiner's own where not given."""
    tile_size: int | None = None
    """Work on larger pictures in overlapping tiles of so many pixels a side, in less memory; all at once where not
    given."""
    seed: int = 0
    """Seed of the starting noise, drawn per picture."""
    device: Literal["auto", "cuda", "cpu"] = "auto"
    """Where to compute; auto takes a GPU where there is one."""


@dataclass(frozen=True)
class Checkpoints:
    """List the checkpoints of a run's output folder with step, size, age, metrics and state, and what is none."""

    run: Annotated[Positional[Path], arg(metavar="RUN")]
    """Output folder of a training run, which may go on meanwhile."""
    verify: bool = False
    """Read every file and compare its checksum; exit code 1 if anything is not what was written."""
    json: Path | None = None
    """File for all of it, sizes in bytes; - prints it instead of the table."""


@dataclass(frozen=True)
class Replay:
    """Compute an update with NaN or infinity again, sample by sample, and tell which samples are guilty."""

    event: Annotated[Positional[Path], arg(metavar="EVENT")]
    """Folder OUTPUT_DIR/nonfinite/step-NNNNNNNN that training has written."""
    checkpoint: Path | None = None
    """Checkpoint whose weights are taken; where not given, the run's newest one that is not after the update."""
    pretrained_model_name_or_path: str | None = None
    """Base of the run, where it is no longer where it was."""
    revision: str | None = None
    """Branch, tag or commit of that base, where it is a hub id."""
    variant: str | None = None
    """Variant of that base's weights, such as fp16."""
    device: Literal["auto", "cuda", "cpu"] = "auto"
    """Where to compute; auto takes a GPU where there is one."""
    precision: Literal["no", "bf16", "fp16"] | None = None
    """Precision of the network, such as no to see whether fp32 mends it; the run's own where not given."""
    json: Path | None = None
    """File for all of it."""


@dataclass(frozen=True)
class Quickstart:
    """All of it on this machine, small: example, base, pack, train, export, evaluate on another street."""

    out: Annotated[Path, arg(name="output_dir")] = Path("runs/quickstart")
    """Folder for everything; a finished step is not done again."""


@dataclass(frozen=True)
class BenchCheckpoint:
    """Measure how long training stands still for a checkpoint on this machine, in the background and waited for."""

    parameters: int = 60_000_000
    """Trained weights of the plain network that is saved, about. Each takes some 50 bytes of memory, and 40 of disk."""
    rounds: int = 5
    """How often each way of saving is measured, taking turns."""
    json: Path | None = None
    """File for all figures of all rounds."""
    markdown: Path | None = None
    """File for the tables that are printed."""
    output: Path | None = None
    """Empty folder to save into, on the disk that is to be measured; what is saved there goes afterwards. Where not
    given, a temporary one."""


@dataclass(frozen=True)
class BenchStep:
    """Measure the training step on this machine: ours, from encoded features, a bare loop, and the baseline's way."""

    device: Literal["auto", "cuda", "cpu"] = "auto"
    """Where to compute; auto takes a GPU where there is one."""
    size: Literal["tiny", "full"] | None = None
    """The shapes that base --size makes, with random weights; full on a GPU and tiny on a CPU where not given."""
    resolution: str | None = None
    """Pixels of a crop as HEIGHTxWIDTH; 512x512 with the full model and 64x64 with the tiny one where not given."""
    train_batch_size: int = 1
    """Micro-batch, as for train."""
    gradient_accumulation_steps: int = 4
    """Micro-batches per optimizer step, as for train, whose 20 would only take longer to measure."""
    precision: Literal["no", "fp16", "bf16"] | None = None
    """Of ours and of the bare loop; bf16 on a GPU and no (fp32) on a CPU where not given. The baseline's way is fp16
    autocast on a GPU and fp32 on a CPU."""
    rounds: int = 5
    """How often each way is measured, taking turns."""
    json: Path | None = None
    """File for all figures of all rounds."""
    markdown: Path | None = None
    """File for the tables that are printed."""


@dataclass(frozen=True)
class BenchData:
    """Measure the data path on this machine: our loader and packer beside the baseline's and other libraries'."""

    json: Path | None = None
    """File for all figures of all rounds."""
    markdown: Path | None = None
    """File for the tables that are printed."""
    output: Path | None = None
    """Empty folder in which everything that is made stays; where not given, a temporary one that goes afterwards."""
    manifest: Path | None = None
    """Own pictures, as for pack; synthetic ones of 1408x376 pixels where not given."""
    buckets: str = BUCKETS
    """Aspect buckets as for train; the samples of the bucket that has most of them are taken."""
    samples: int = 192
    """Samples that each loader is measured over in each round, in laps of 64 at most. All loaders together take about
    7 GB of disk with synthetic pictures."""
    rounds: int = 5
    """How often each is measured, taking turns."""
    workers: int = 1
    """Worker processes of every loader but the baseline, which has none."""
    peers_python: str | None = None
    """Python in whose environment webdataset, mosaicml-streaming and litdata are; ours where not given. What is not
    installed there is reported as such."""
    only: str | None = None
    """Only these, comma-separated: names of the table, or their first parts, e.g. baseline,ours,webdataset."""


@dataclass(frozen=True)
class Doctor:
    """Look at this machine, or at every host of a hostfile, before a run: what is red, and what to do about it."""

    hostfile: Path | None = None
    """Hosts as the deepspeed launcher reads them, a line `node0 slots=8` for each; asked over ssh, all at once. This
    machine alone where not given."""
    shards: str | None = None
    """Shards of the run: there, whole in size, and the same on every host."""
    pretrained_model_name_or_path: str | None = None
    """Base of the run, a folder or a hub id: whole, and the same on every host."""
    revision: str | None = None
    """Branch, tag or commit of the base, where that is a hub id."""
    variant: str | None = None
    """Weights of this variant of the base, such as fp16."""
    output_dir: Path | None = None
    """Folder of the run: can be written, is shared by all hosts, and has room for the checkpoints to come."""
    checkpoints_total_limit: int | None = None
    """How many of its newest checkpoints the run keeps; all where not given."""
    keep_best: int = 0
    """How many of the best ones it keeps beside those."""
    keep_every: int = 0
    """Those of every so many optimizer steps are kept beside those for ever."""
    max_train_steps: int | None = None
    """Optimizer steps of the run, which tell how many checkpoints there will be."""
    checkpointing_steps: int = 500
    """Optimizer steps between checkpoints."""
    use_ema: bool = False
    """The run keeps a moving average, which its checkpoints hold too."""
    plan: Path | None = None
    """What `refiner-ds plan --json` has written for the run: how large its checkpoints are and how many there will be,
    also where not all weights of the base are trained."""
    tracking_uri: str | None = None
    """MLflow server or store, to which the first host sends a run that is deleted again; MLFLOW_TRACKING_URI when not
    given."""
    experiment: str = "refiner_ds"
    """MLflow experiment of that run."""
    master_port: int = 29500
    """Port on which the ranks will meet, on the first host."""
    deepspeed_config: Path | None = None
    """DeepSpeed JSON of the run, whose global batch the ranks must be able to share."""
    train_batch_size: int | None = None
    """Micro-batch per device, as for train."""
    gradient_accumulation_steps: int | None = None
    """Micro-batches per optimizer step, as for train."""
    json: Path | None = None
    """File for all lines; - prints them instead of the table."""


@dataclass(frozen=True)
class Plan:
    """Tell memory per GPU, global batch, length, checkpoints and hours of a run before anything is queued."""

    pretrained_model_name_or_path: str | None = None
    """Base of the run, a folder or a hub id, of which the shapes are read and no weights are loaded."""
    revision: str | None = None
    """Branch, tag or commit of the base, where that is a hub id."""
    variant: str | None = None
    """Weights of this variant of the base, such as fp16."""
    size: Literal["tiny", "full"] | None = None
    """The shapes that base --size makes, where there is no base at hand; full are those of Stable Diffusion 2.1."""
    ranks: int = 1
    """GPUs of the job, over all nodes."""
    gpu_memory: str | None = None
    """Memory of each, such as 80GB; this machine's GPU's where there is one and nothing is given."""
    deepspeed_config: Path | None = None
    """DeepSpeed JSON of the run; as ds_configs/zero2.json where not given."""
    train_batch_size: int | None = None
    """Micro-batch per device, as for train."""
    gradient_accumulation_steps: int | None = None
    """Micro-batches per optimizer step, as for train."""
    mixed_precision: Literal["no", "fp16", "bf16"] | None = None
    """Precision of the network, as for train."""
    buckets: str = BUCKETS
    """Aspect buckets as KEY:WIDTHxHEIGHT, comma-separated; a square crop of the height is cut from each."""
    gradient_checkpointing: bool = False
    """Compute activations twice instead of keeping them."""
    trainable: Literal["all", "attention"] = "all"
    """Layers that are trained, beside conv_in, which always is."""
    lora_rank: int | None = None
    """Train these layers through low-rank updates of this rank instead of in full."""
    use_8bit_adam: bool = False
    """AdamW with moments of 8 bits."""
    use_ema: bool = False
    """Keep a moving average of the weights."""
    shards: str | None = None
    """Shards of the run, for epochs: a folder that pack wrote, or its URL."""
    num_train_epochs: int = 100
    """Passes over the training split, unless max_train_steps is given."""
    max_train_steps: int | None = None
    """Optimizer steps in all; overrides num_train_epochs."""
    checkpointing_steps: int = 500
    """Optimizer steps between checkpoints; one is always written at the end."""
    checkpoints_total_limit: int | None = None
    """How many of its newest checkpoints the run keeps; all where not given."""
    keep_best: int = 0
    """How many of the best ones it keeps beside those."""
    keep_every: int = 0
    """Those of every so many optimizer steps are kept beside those for ever."""
    pairs_per_second: float | None = None
    """Pairs that ONE rank trains on in a second, for the hours of the run."""
    rate_from: Path | None = None
    """Output folder of an earlier run, whose measured rate per rank is taken instead."""
    json: Path | None = None
    """File for all of it, sizes in bytes; - prints it instead of the table."""
