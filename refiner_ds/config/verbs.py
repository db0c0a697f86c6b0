"""What each verb can be told: one dataclass a verb, whose fields are its flags and whose docstrings are its help."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from tyro.conf import Positional, UseAppendAction, arg

BUCKETS = "1.5:640x480,3.66:1917x512"
"""The two aspect buckets of GaussianRefiner: key (nearest W/H), then width x height in pixels."""

SchedulerName = Literal["linear", "cosine", "cosine_with_restarts", "polynomial", "constant", "constant_with_warmup"]
"""The shapes of the learning rate, by the names that diffusers gives them."""

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
    workers: int = 2
    """Processes that check and write; the shards do not depend on it."""


@dataclass(frozen=True)
class Verify:
    """Read back everything that was packed and check it against the index."""

    shards: Annotated[Positional[Path], arg(metavar="SHARDS")]
    """Folder that pack or index wrote into."""
    workers: int = 2
    """Processes that read and decode."""


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
class Train:
    """Train a refiner on packed shards under DeepSpeed; the same command again resumes it."""

    shards: Path
    """Folder that pack wrote."""
    pretrained_model_name_or_path: str
    """Base checkpoint: a folder in the layout of stable-diffusion-2-1-unclip, or a hub id."""
    output_dir: Path
    """Folder of this run: checkpoints, metrics.jsonl, validation pictures, the resolved configuration."""
    revision: str | None = None
    """Branch, tag or commit of the base, where that is a hub id."""
    variant: str | None = None
    """Take the base's weights of this variant, such as fp16."""
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
    learning_rate: float | None = None
    """Peak learning rate; 1e-4 where the JSON says auto or has no optimizer section."""
    scale_lr: bool = False
    """Multiply the learning rate by accumulation x micro-batch x number of ranks."""
    lr_scheduler: SchedulerName | None = None
    """Shape of the learning rate over the run; constant where the JSON has no scheduler section."""
    lr_warmup_steps: int | None = None
    """Optimizer steps N over which the rate rises evenly, from peak/(N+1) on, 0 when not given; the plain constant
    schedule has none. Fills the JSON's warmup_num_steps where that says auto."""
    adam_beta1: float | None = None
    """Decay of AdamW's first moment; 0.9 where the JSON says auto or has no optimizer section."""
    adam_beta2: float | None = None
    """Decay of AdamW's second moment; 0.999 where the JSON says auto or has no optimizer section."""
    adam_weight_decay: float | None = None
    """Decoupled weight decay of AdamW; 1e-2 where the JSON says auto or has no optimizer section."""
    adam_epsilon: float | None = None
    """Added to the denominator of AdamW; 1e-8 where the JSON says auto or has no optimizer section."""
    use_8bit_adam: bool = False
    """AdamW with moments of 8 bits (bitsandbytes), a quarter of their memory; for JSONs without optimizer section."""
    max_grad_norm: float | None = None
    """Gradient norm above which gradients are scaled down; 1.0 where the JSON says auto."""
    condition_dropout_prob: float = 0.05
    """Probability of each of the seven cases of condition dropout; zero trains without."""
    source_loss_weight: float = 1.0
    """Weight of the reference rows in the loss; 1.0 is parity with GaussianRefiner."""
    snr_gamma: float | None = None
    """Weigh each row's error by min(SNR, gamma) over SNR, or over SNR + 1 for velocity; 5.0 is usual. Reference rows,
    whose SNR is about 1,200, then hardly count, and a last timestep without signal does not count at all."""
    noise_offset: float = 0.0
    """Scale of noise that is constant over each channel of a row, added to the noise; 0.1 is usual where it is used."""
    input_perturbation: float = 0.0
    """Scale of noise that is added to the network's input and not to what it shall predict; 0.1 is usual."""
    prediction_type: Literal["epsilon", "v_prediction"] | None = None
    """What the network learns to predict, and the export says it does; as the base's scheduler says where not given."""
    rescale_betas_zero_snr: bool = False
    """Rescale the noise so that nothing is left of the picture at the last timestep; the export samples with DDIM."""
    trainable: Literal["all", "attention"] = "all"
    """Layers that are trained, beside conv_in, which always is."""
    lora_rank: int | None = None
    """Train these layers through low-rank updates of this rank instead of in full; the export has them merged."""
    gradient_checkpointing: bool = False
    """Compute activations twice instead of keeping them: less memory, about a third more time."""
    shuffle_window_shards: int | None = None
    """Shuffle within windows of so many shards; over all shards when not given, which is best where disks are local."""
    lanes: int = 1
    """Parts that the shards are dealt into; nodes whose number divides it read only the shards of their own parts."""
    max_bad_samples: int = 0
    """Broken samples that others may stand in for before the run ends; at 0 it ends at the first."""
    random_flip: bool = False
    """Mirror half of the samples left to right, all three views alike."""
    use_ema: bool = False
    """Keep a moving average of the weights, which validation and export take; 4 bytes per weight over all ranks."""
    ema_decay: float | None = None
    """Largest decay of the average, 0.9999 when not given; it rises to it as (1 + n) / (10 + n) after n updates."""
    allow_tf32: bool = False
    """Let fp32 products on GPUs from Ampere on be rounded to TF32: faster, about three digits."""
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
    weights: Literal["auto", "ema", "trained"] = "auto"
    """ema: the moving average of the weights; trained: the weights themselves; auto: the average if there is one."""
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
    """Folder that export wrote."""
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
class Quickstart:
    """All of it on this machine, small: example, base, pack, train, export, evaluate on another street."""

    out: Annotated[Path, arg(name="output_dir")] = Path("runs/quickstart")
    """Folder for everything; a finished step is not done again."""
