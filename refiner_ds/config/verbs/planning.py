"""What the verbs before a run can be told."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from refiner_ds.config.training import BUCKETS


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
    checkpointed_blocks: Literal["all", "attention"] | None = None
    """Blocks that --gradient_checkpointing is for, as for train."""
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
    link_gigabits: float | None = None
    """Gigabits per second of the slowest link of a ring through all ranks, for the seconds of a step's traffic: over
    several nodes that of a node's network cards together, as one rank of each sends out."""
    pairs_per_second: float | None = None
    """Pairs that ONE rank trains on in a second, for the hours of the run."""
    rate_from: Path | None = None
    """Output folder of an earlier run, whose measured rate per rank is taken instead."""
    json: Path | None = None
    """File for all of it, sizes in bytes; - prints it instead of the table."""
