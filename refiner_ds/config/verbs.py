"""What each verb can be told: one dataclass a verb, whose fields are its flags and whose docstrings are its help."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from tyro.conf import Positional, arg

BUCKETS = "1.5:640x480,3.66:1917x512"
"""The two aspect buckets of GaussianRefiner: key (nearest W/H), then width x height in pixels."""

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
    """Pack a manifest of render, gt and cond pictures into WebDataset shards with an index."""

    manifest: Annotated[Positional[Path], arg(metavar="MANIFEST")]
    """JSON file with three aligned lists of paths: render, gt, cond; relative paths start at the file's folder."""
    out: Out
    """Folder to write the shards and index.json into; must not exist or be empty."""
    val: int = 10
    """The last N samples of the manifest are held out for validation."""
    shard_size: int = 512 * 1024 * 1024
    """A new shard starts once this many bytes are in one."""
    workers: int = 2
    """Processes that check and write; the shards do not depend on it."""


@dataclass(frozen=True)
class Verify:
    """Read back everything that was packed and check it against the index."""

    shards: Annotated[Positional[Path], arg(metavar="SHARDS")]
    """Folder that pack wrote."""


@dataclass(frozen=True)
class Train:
    """Train a refiner on packed shards under DeepSpeed; the same command again resumes it."""

    shards: Path
    """Folder that pack wrote."""
    pretrained_model_name_or_path: str
    """Base checkpoint: a folder in the layout of stable-diffusion-2-1-unclip, or a hub id."""
    output_dir: Path
    """Folder of this run: checkpoints, metrics.jsonl, validation pictures, the resolved configuration."""
    deepspeed_config: Path | None = None
    """DeepSpeed JSON, see ds_configs/; under accelerate launch, its configuration file where this is not given."""
    train_batch_size: int | None = None
    """Micro-batch per device (DeepSpeed's train_batch_size is the global batch); 1 where the JSON says auto."""
    gradient_accumulation_steps: int | None = None
    """Micro-batches per optimizer step; 20 where the JSON says auto."""
    num_train_epochs: int = 100
    """Passes over the training split, unless max_train_steps is given."""
    max_train_steps: int | None = None
    """Optimizer steps in all; overrides num_train_epochs."""
    mixed_precision: Literal["no", "fp16", "bf16"] | None = None
    """Precision of the network; bf16 where the JSON says auto."""
    learning_rate: float = 1e-4
    """Peak learning rate of AdamW."""
    scale_lr: bool = False
    """Multiply the learning rate by accumulation x micro-batch x number of ranks."""
    lr_scheduler: Literal[
        "linear", "cosine", "cosine_with_restarts", "polynomial", "constant", "constant_with_warmup"
    ] = "constant"
    """Shape of the learning rate over the run."""
    lr_warmup_steps: int = 0
    """Optimizer steps N over which the rate rises evenly, from peak/(N+1) on; the plain constant schedule has none."""
    adam_beta1: float = 0.9
    """Decay of AdamW's first moment."""
    adam_beta2: float = 0.999
    """Decay of AdamW's second moment."""
    adam_weight_decay: float = 1e-2
    """Decoupled weight decay of AdamW."""
    adam_epsilon: float = 1e-8
    """Added to the denominator of AdamW."""
    max_grad_norm: float | None = None
    """Gradient norm above which gradients are scaled down; 1.0 where the JSON says auto."""
    condition_dropout_prob: float = 0.05
    """Probability of each of the seven cases of condition dropout; zero trains without."""
    source_loss_weight: float = 1.0
    """Weight of the reference rows in the loss; 1.0 is parity with GaussianRefiner."""
    checkpointing_steps: int = 500
    """Optimizer steps between checkpoints; one is always written at the end."""
    checkpoints_total_limit: int | None = None
    """Keep this many newest checkpoints; older ones go once a newer one is complete. All are kept when not given."""
    resume_from_checkpoint: str = "latest"
    """latest continues from output_dir's newest complete checkpoint, if there is one; else a checkpoint of this run."""
    validation_epochs: int = 5
    """Epochs between validations on the held-out split; one is always made at the end. Zero makes none."""
    validation_steps: int | None = None
    """Sampling steps of validation; the base's own where not given, 20 unless it says otherwise."""
    validation_guidance_scale: float | None = None
    """Guidance of validation; the base's own where not given, 10 unless it says otherwise."""
    logging_steps: int = 10
    """Optimizer steps between two readings of the losses; every step's figures are written all the same."""
    buckets: str = BUCKETS
    """Aspect buckets as KEY:WIDTHxHEIGHT, comma-separated; a square crop of the height is cut from each."""
    dataloader_num_workers: int = 2
    """Processes per rank that decode; the batches do not depend on it."""
    seed: int = 0
    """Seed of order, crops, noise, timesteps and dropout."""
    tracking_uri: str | None = None
    """MLflow server or store; MLFLOW_TRACKING_URI when not given, else sqlite:///mlflow.db in the working folder."""
    experiment: str = "refiner_ds"
    """MLflow experiment that the run belongs to."""
    timeout_minutes: float = 10.0
    """A collective that waits longer for a rank ends the job."""


@dataclass(frozen=True)
class Export:
    """Write a checkpoint as a diffusers pipeline folder in safetensors."""

    checkpoint: Annotated[Positional[Path], arg(metavar="CHECKPOINT")]
    """A checkpoint-STEP folder, or a run's output folder for its newest complete checkpoint."""
    out: Out
    """Folder to write the pipeline into; must not exist or be empty."""


@dataclass(frozen=True)
class Repair:
    """Repair one picture, or all of a manifest, with an exported refiner."""

    model: Path
    """Folder that export wrote."""
    output: Path
    """Picture to write (.png, .jpg, .webp) or existing folder for it; with --manifest the folder for its pictures."""
    render: Path | None = None
    """Degraded render."""
    cond: Path | None = None
    """Reference photograph from a nearby view, of the render's size."""
    manifest: Path | None = None
    """JSON file with aligned lists render and cond, instead of one picture."""
    num_inference_steps: int | None = None
    """Sampling steps; the refiner's own where not given, 20 unless its folder says otherwise."""
    guidance_scale: float | None = None
    """Guidance from the bad to the good prompt, the refiner's own (10) where not given; 1 is none, at half the time."""
    seed: int = 0
    """Seed of the starting noise, drawn per picture."""
    device: Literal["auto", "cuda", "cpu"] = "auto"
    """Where to compute; auto takes a GPU where there is one."""


@dataclass(frozen=True)
class Evaluate:
    """Compare render and repaired against gt: metrics.json and a report with pictures."""

    model: Path
    """Folder that export wrote."""
    output: Path
    """Folder for report.html, metrics.json and pictures.png."""
    manifest: Path | None = None
    """JSON file with aligned lists render, gt and cond."""
    shards: Path | None = None
    """Or a folder that pack wrote, whose validation split is taken."""
    run: Path | None = None
    """Output folder of the training run, whose loss curve goes into the report."""
    num_inference_steps: int | None = None
    """Sampling steps; the refiner's own where not given, 20 unless its folder says otherwise."""
    guidance_scale: float | None = None
    """Guidance from the bad to the good prompt, the refiner's own (10) where not given; 1 is none, at half the time."""
    seed: int = 0
    """Seed of the starting noise, drawn per picture."""
    device: Literal["auto", "cuda", "cpu"] = "auto"
    """Where to compute; auto takes a GPU where there is one."""


@dataclass(frozen=True)
class Quickstart:
    """All of it on this machine, small: example, base, pack, train, export, evaluate on another street."""

    out: Annotated[Path, arg(name="output_dir")] = Path("runs/quickstart")
    """Folder for everything; a finished step is not done again."""
