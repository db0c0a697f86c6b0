"""What `refiner-ds train` can be told: a dataclass whose fields are its flags and whose docstrings are its help."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

BUCKETS = "1.5:640x480,3.66:1917x512"
"""The two aspect buckets of GaussianRefiner: key (nearest W/H), then width x height in pixels."""

SchedulerName = Literal["linear", "cosine", "cosine_with_restarts", "polynomial", "constant", "constant_with_warmup"]
"""The shapes of the learning rate, by the names that diffusers gives them."""


@dataclass(frozen=True)
class Train:
    """Train a refiner on packed shards under DeepSpeed; the same command again resumes it."""

    shards: str
    """Folder that pack wrote, or its URL: s3://, gs://, https:// or what else fsspec knows."""
    pretrained_model_name_or_path: str
    """Base checkpoint: a folder in the layout of stable-diffusion-2-1-unclip, or a hub id."""
    output_dir: Path
    """Folder of this run: checkpoints, metrics.jsonl, validation pictures, the resolved configuration."""
    revision: str | None = None
    """Branch, tag or commit of the base, where that is a hub id."""
    variant: str | None = None
    """Take the base's weights of this variant, such as fp16."""
    shard_cache: Path | None = None
    """Folder on a disk of each node for shards that lie at a URL; without one they are read again and again."""
    shard_cache_limit: str | None = None
    """Bytes that this folder may take on each node, such as 200GB."""
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
    """Train these layers through low-rank updates of this rank instead of in full; an export merges them or not."""
    gradient_checkpointing: bool = False
    """Compute activations twice instead of keeping them: less memory for more arithmetic; plan counts both."""
    checkpointed_blocks: Literal["all", "attention"] | None = None
    """Blocks that --gradient_checkpointing is for: all where not given; those of attention save about four
    fifths of what all save, for a bit more than half of the arithmetic."""
    compile: bool = False
    """Compile the network for training by torch's inductor, once for each shape of a micro-batch, which takes minutes
    and a C++ compiler on every node; what was compiled is kept for the next start."""
    shuffle_window_shards: int | None = None
    """Shuffle within windows of so many shards; over all shards when not given, which is best where disks are local."""
    lanes: int = 1
    """Parts that the shards are dealt into; nodes whose number divides it read only the shards of their own parts."""
    max_bad_samples: int = 0
    """Broken samples that others may stand in for before the run ends; at 0 it ends at the first."""
    max_nonfinite_steps: int = 0
    """Updates with NaN or infinity that may be skipped before the run ends; at 0 it ends at the first."""
    resampling: Literal["exact", "window"] = "exact"
    """How crops are resized: bit for bit as from the whole picture, or from their window only, which is faster and off
    by at most 2/255 in fewer than 1 of 2,000 values. What was packed at its bucket's size is not resized."""
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
    keep_best: int = 0
    """Keep this many checkpoints with the best validation beside those; each validation that is among the best saves
    one."""
    best_metric: Literal["psnr", "ssim", "lpips", "dino", "worse_share"] = "psnr"
    """What tells the best of the held-out split's repaired pictures; lpips and dino need their weights on all nodes,
    and with worse_share it is the one that makes fewest samples worse than their renders."""
    export_best: bool = False
    """Export the checkpoint of each validation that is the best so far into OUTPUT_DIR/best, in the background; saves
    one for it."""
    keep_every: int = 0
    """Keep those of every so many optimizer steps for ever."""
    save_before_end: int | None = None
    """Seconds before the end of the job's time (Slurm's, or REFINER_DS_END_TIME in seconds since 1970) at which the run
    saves and ends with exit code 75; the same command continues it."""
    accept_other_shards: bool = False
    """Continue on other shards than those that the run has been trained on so far."""
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
    log_json: bool = False
    """Print what happens as JSON, one object a line, instead of for a person."""
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
    """Ranks that cannot meet so soon, a collective that waits longer, or a host that is silent longer end the job."""

    @property
    def checkpointed(self) -> Literal["nothing", "attention", "all"]:
        """Blocks whose activations are computed twice."""
        return (self.checkpointed_blocks or "all") if self.gradient_checkpointing else "nothing"
