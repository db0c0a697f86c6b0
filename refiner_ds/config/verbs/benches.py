"""What the benches can be told."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from refiner_ds.config.training import BUCKETS


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
class BenchStep:
    """Measure the training step on this machine: ours, from encoded features, a bare loop, and the baseline's way."""

    device: Literal["auto", "cuda", "cpu"] = "auto"
    """Where to compute; auto takes a GPU where there is one."""
    size: Literal["tiny", "full-encoders", "full"] | None = None
    """The shapes that base --size makes, with random weights, or full-encoders: the tiny UNet behind the full VAE and
    image encoder, which shows on a CPU what encoded shards save. Full on a GPU and tiny on a CPU where not given."""
    resolution: str | None = None
    """Pixels of a crop as HEIGHTxWIDTH; 512x512 with the full model and 64x64 with the others where not given."""
    train_batch_size: int = 1
    """Micro-batch, as for train."""
    gradient_accumulation_steps: int = 4
    """Micro-batches per optimizer step, as for train, whose 20 would only take longer to measure."""
    precision: Literal["no", "fp16", "bf16"] | None = None
    """Of ours and of the bare loop; bf16 on a GPU and no (fp32) on a CPU where not given. The baseline's way is fp16
    autocast on a GPU and fp32 on a CPU."""
    shards: str | None = None
    """Shards that pack or encode wrote, as for train, which ours is measured from too: the samples of the bucket that
    most are of, in crops of its height. Synthetic pictures of 1408x376 and random latents in shards where not given."""
    buckets: str | None = None
    """Aspect buckets as for train, with --shards; where not given, those that the shards were made for, if they were
    for any, else train's own."""
    dataloader_num_workers: int = 2
    """Processes that read shards, as for train."""
    compile: bool = False
    """Measure ours from encoded features with a compiled network too, as train --compile; it takes minutes more."""
    rounds: int = 5
    """How often each way is measured, taking turns."""
    json: Path | None = None
    """File for all figures of all rounds."""
    markdown: Path | None = None
    """File for the tables that are printed."""


@dataclass(frozen=True)
class BenchExchange:
    """Measure what two ranks on this machine's CPU send each other in a step, under ZeRO-1 and ZeRO-2."""

    link: int | None = None
    """Megabits per second of a cable between two network namespaces, in each direction, which takes root; loopback
    where not given."""
    gradient_accumulation_steps: int = 20
    """Micro-batches per optimizer step, as for train."""
    precision: Literal["no", "bf16"] = "no"
    """Of the network and of what is sent; no is fp32."""
    reduce_bucket_size: int | None = None
    """Gradients that are reduced at once, as the DeepSpeed JSON has it; what "auto" there comes to where not given."""
    steps: int = 2
    """Optimizer steps that each way is measured over in each round, after one that is not."""
    rounds: int = 3
    """How often each way is measured, taking turns."""
    json: Path | None = None
    """File for all figures of all rounds."""
    markdown: Path | None = None
    """File for the table that is printed."""


@dataclass(frozen=True)
class BenchEncode:
    """Measure the frozen encoders on this machine: ours, the baseline's way, and that without reading its pictures."""

    device: Literal["auto", "cuda", "cpu"] = "auto"
    """Where to compute; auto takes a GPU where there is one."""
    size: Literal["tiny", "full"] | None = None
    """The shapes that base --size makes, with random weights; full on a GPU and tiny on a CPU where not given."""
    resolution: str | None = None
    """Pixels of a crop as HEIGHTxWIDTH; 512x512 with the full model and 64x64 with the tiny one where not given."""
    train_batch_size: int = 1
    """Micro-batch, as for train: pairs that are encoded at once."""
    precision: Literal["no", "fp16", "bf16"] | None = None
    """Of ours; bf16 on a GPU and no (fp32) on a CPU where not given. The baseline's way is fp16 on a GPU and fp32 on a
    CPU."""
    rounds: int = 5
    """How often each way is measured, taking turns."""
    json: Path | None = None
    """File for all figures of all rounds."""
    markdown: Path | None = None
    """File for the tables that are printed."""


@dataclass(frozen=True)
class BenchRepair:
    """Measure repairing pictures on this machine: ours, and the baseline's way."""

    device: Literal["auto", "cuda", "cpu"] = "auto"
    """Where to compute; auto takes a GPU where there is one."""
    size: Literal["tiny", "full"] | None = None
    """The shapes that base --size makes, with random weights; full on a GPU and tiny on a CPU where not given."""
    resolution: str | None = None
    """Pixels of a picture as HEIGHTxWIDTH; 512x512 with the full model and 64x64 with the tiny one where not given."""
    batch_size: int = 1
    """Pictures that are repaired at once."""
    steps: int = 20
    """Sampling steps, with guidance 10: what an export is sampled with unless its folder says otherwise."""
    precision: Literal["no", "fp16", "bf16"] | None = None
    """Of both ways; fp16 on a GPU, as for repair, and no (fp32) on a CPU where not given."""
    rounds: int = 5
    """How often each way is measured, taking turns."""
    json: Path | None = None
    """File for all figures of all rounds."""
    markdown: Path | None = None
    """File for the tables that are printed."""


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
class BenchCrops:
    """Compare crops of latents, as training cuts them from encoded pictures, with latents of crops."""

    shards: str
    """Shards of pictures, some of them wider than high: a folder, or its URL."""
    pretrained_model_name_or_path: str
    """Base checkpoint whose encoders and network are used."""
    revision: str | None = None
    """Branch, tag or commit of the base, where that is a hub id."""
    variant: str | None = None
    """Take the base's weights of this variant, such as fp16."""
    buckets: str = BUCKETS
    """Aspect buckets as for encode."""
    windows: int = 4
    """Windows whose embeddings a crop may have, as for encode."""
    dtype: Literal["fp16", "bf16"] = "fp16"
    """Precision of the stored latents."""
    precision: Literal["fp32", "fp16", "bf16"] = "fp32"
    """Precision that encoders and network compute in."""
    samples: int = 32
    """Training samples that are looked at, spread over all; of each a crop by chance."""
    seed: int = 0
    """Seed of the crops, and of noise, timesteps and dropout."""
    device: Literal["auto", "cuda", "cpu"] = "auto"
    """Where to compute; auto takes a GPU where there is one."""
    json: Path | None = None
    """File for all figures."""
    markdown: Path | None = None
    """File for what is printed."""


@dataclass(frozen=True)
class BenchAll:
    """Run all benches but exchange and crops one after the other with their defaults; keep their pages and figures."""

    output: Path
    """Empty folder for NAME.md, NAME.json and NAME.log of each, and BENCHMARKS.md with all pages."""
    only: str | None = None
    """Only these, comma-separated: step, data, encode, repair, checkpoint."""
    rounds: int | None = None
    """How often each way is measured; each bench's own default where not given."""
    device: Literal["auto", "cuda", "cpu"] = "auto"
    """Where the benches compute that have a choice: step, encode and repair."""
