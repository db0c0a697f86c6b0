"""What the verbs of models can be told: making, listing, exporting, using and judging them."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from tyro.conf import Positional, arg

from refiner_ds.config.verbs.words import Out


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
class Checkpoints:
    """List the checkpoints of a run's output folder with step, size, age, metrics and state, and what is none."""

    run: Annotated[Positional[Path], arg(metavar="RUN")]
    """Output folder of a training run, which may go on meanwhile."""
    verify: bool = False
    """Read every file and compare its checksum; exit code 1 if anything is not what was written."""
    json: Path | None = None
    """File for all of it, sizes in bytes; - prints it instead of the table."""


@dataclass(frozen=True)
class Status:
    """Tell how a run is doing from its output folder: state, step, time left, losses, validation, checkpoints."""

    run: Annotated[Positional[Path], arg(metavar="RUN")]
    """Output folder of a training run."""
    json: Path | None = None
    """File for all of it, times in seconds; - prints it instead of the lines."""


@dataclass(frozen=True)
class TrackingSync:
    """Send MLflow what it lacks of a run, in order and once, e.g. after its server was away until the run had ended."""

    run: Annotated[Positional[Path], arg(metavar="RUN")]
    """Output folder of a training run."""
    tracking_uri: str | None = None
    """MLflow server or store; MLFLOW_TRACKING_URI when not given, else where the run has been tracked so far."""
    experiment: str = "refiner_ds"
    """MLflow experiment, where the run is in none yet."""


@dataclass(frozen=True)
class TrackingRegister:
    """Make an exported refiner a version of a model in MLflow's registry, which `mlflow.pyfunc` loads."""

    model: Annotated[Positional[Path], arg(metavar="MODEL")]
    """Folder that export wrote, a pipeline; it is copied to MLflow's artifacts."""
    name: str
    """Name of the model in the registry; it becomes its next version."""
    run: Path | None = None
    """Output folder of the run that it was trained by, to whose MLflow run it is then attached."""
    tracking_uri: str | None = None
    """MLflow server or store; MLFLOW_TRACKING_URI when not given, else where the run is tracked."""
    experiment: str = "refiner_ds"
    """MLflow experiment of the model's own run, where no --run is given."""


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
    """Output folder of the training run: its curves go into the report, and the evaluation into its MLflow run."""
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
