"""Memory of one rank, by part, from numbers alone: what DeepSpeed 0.19.8 allocates for a setup, read in its source.

What is sharded is ZeRO's (Rajbhandari et al. 2020, arXiv:1910.02054, sections 5 and 6). What is beside that is the
implementation's: runtime/zero/stage_1_and_2.py (DeepSpeedZeroOptimizer); where training adds gradients up whole, our
train/gradients.py; and for the update our train/zero_update.py. Stages 0 and 3, which training refuses, are here to
compare with.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from refiner_ds.config.deepspeed import adds_up_whole
from refiner_ds.estimate.activations import MicroBatch
from refiner_ds.estimate.disk import checkpoint_bytes
from refiner_ds.estimate.parameters import Counts

SNAPSHOT = "snapshot for checkpoints"
"""What a save copies of a rank's shards before it is written; the memory stays for the next one, and is pinned where a
GPU holds the shards."""
GATHERED = 50_000_000
"""Weights that stage 3 gathers ahead of their use, DeepSpeed's stage3_prefetch_bucket_size. What it has gathered it
keeps up to stage3_max_live_parameters, 1e9: here all of them, where that is not set lower."""
ALIGNMENT = 2
"""Shards are multiples of so many values (nccl_start_alignment_factor)."""


@dataclass(frozen=True)
class Setup:
    """How a run is set up, as far as memory depends on it.

    Attributes:
        weight_bytes: of a weight in the precision that the network computes in: 2, or 4 without mixed precision.
        has_fp32_accumulation: grad_accum_dtype is fp32.
        offloads: the optimizer's state and step are on the CPU.
        bucket: reduce_bucket_size, in elements.
        buckets: 2 with overlap_comm, else 1.
        accumulation: micro-batches per optimizer step.
        moment_bytes: of the optimizer's state, for each weight: 8 for AdamW.
        update_bytes: temporaries of the optimizer's step, for each weight: none where it is fused.
        has_average: a moving average is kept.
    """

    stage: int
    ranks: int
    weight_bytes: int
    is_bf16: bool
    has_fp32_accumulation: bool
    offloads: bool
    bucket: int
    buckets: int
    accumulation: int
    moment_bytes: int
    update_bytes: int
    has_average: bool

    @property
    def adds_up_whole(self) -> bool:
        """Gradients are kept whole and reduced once, as training does."""
        return adds_up_whole(self.stage, self.ranks, self.offloads)

    @property
    def has_masters(self) -> bool:
        """Beside the network's weights there are fp32 ones; without, the optimizer updates the network's own."""
        return self.weight_bytes != 4 or self.stage == 3 or self.offloads

    @property
    def accumulates_apart(self) -> bool:
        """Gradients are added up in another precision than they come in."""
        return self.has_fp32_accumulation and self.weight_bytes != 4


@dataclass(frozen=True)
class Bill:
    """Bytes of one rank by part: on its device always, and in the moments of a step, of which one is the worst; on
    the host, where the optimizer is offloaded to it, while the base is loaded, and from the first save on.
    """

    always: dict[str, int]
    encoding: dict[str, int]
    backward: dict[str, int]
    update: dict[str, int]
    host: dict[str, int] = field(default_factory=dict)

    @property
    def moments(self) -> dict[str, int]:
        """Bytes on the device in each moment."""
        always = sum(self.always.values())
        return {name: always + sum(getattr(self, name).values()) for name in ("encoding", "backward", "update")}

    @property
    def total(self) -> int:
        """Bytes on the device at the worst moment."""
        return max(self.moments.values())


@dataclass(frozen=True)
class Gradients:
    """Bytes of gradients over a step.

    Attributes:
        between: left by one micro-batch for the next.
        backward: on the way back, by part.
        reduced: when all are there and are made ready for the update.
        updating: while the optimizer works.
    """

    between: int
    backward: dict[str, int]
    reduced: int
    updating: int


def bill(counts: Counts, setup: Setup, batch: MicroBatch) -> Bill:
    """Bytes by part for one micro-batch size and crop."""
    weights, shard, of = counts.trained, shard_of(counts.trained, setup), setup.weight_bytes
    device = {
        "weights": of * ((shard if setup.stage == 3 else weights) + counts.held),
        "gathered weights": of * min(weights, GATHERED + counts.largest) if setup.stage == 3 else 0,
        "frozen encoders": of * sum(counts.frozen.values()),
    }
    state = {
        "fp32 masters": 4 * shard if setup.has_masters else 0,
        "optimizer moments": setup.moment_bytes * shard,
        "moving average": 4 * shard if setup.has_average else 0,
    }
    host = {
        "base while it is loaded": 4 * (counts.loaded + weights),
        SNAPSHOT: checkpoint_bytes(shard, setup.has_average, setup.moment_bytes),
    }
    temporaries = setup.update_bytes * shard
    if setup.offloads:
        host |= state | {"fp32 gradients": 4 * shard, "copy of the shard": of * shard}
        host["accumulated gradients"] = 0 if setup.accumulates_apart else of * shard
        temporaries = 0
    else:
        device |= state
    gradients = _gradients(weights, shard, counts.largest, setup)
    updating = {"gradients": gradients.updating, "optimizer's temporaries": temporaries}
    update = max({"gradients": gradients.reduced}, updating, key=lambda parts: sum(parts.values()))
    return Bill(
        always=_present(device),
        encoding=_present({"gradients": gradients.between, "encoders' activations": batch.encoding}),
        backward=_present({**gradients.backward, "activations": batch.kept, "workspace": batch.workspace}),
        update=_present(update),
        host=_present(host),
    )


def shard_of(weights: int, setup: Setup) -> int:
    """Weights that one rank updates, padding included; all at stage 0."""
    if setup.stage == 0:
        return weights
    block = ALIGNMENT * setup.ranks
    return -(-weights // block) * block // setup.ranks


def _gradients(weights: int, shard: int, largest: int, setup: Setup) -> Gradients:
    """By who adds gradients up, and whether in fp32 apart from those that come in."""
    of, apart = setup.weight_bytes, setup.accumulates_apart
    if setup.adds_up_whole:  # beside them the one that comes in, and before the update a shard, reduced by buckets
        each, several = 4 if apart else of, setup.ranks > 1
        held, sharded = each * weights, each * shard if several else 0
        sent = of * min(setup.bucket // setup.ranks, shard) * (setup.ranks + 1) if several else 0
        incoming = (of + each if apart else of) * largest
        backward = {"gradients": held, "gradient that comes in": incoming}
        as_fp32 = 4 * shard if each != 4 else 0
        return Gradients(held, backward, held + sharded + sent, held + sharded + as_fp32)
    several = setup.accumulation > 1
    if setup.stage == 0:  # what is reduced is flattened, and the update takes fp32
        held, flat = of * weights, of * weights if setup.ranks > 1 else 0
        as_fp32 = 4 * weights if of != 4 else 0
        return Gradients(held if several else 0, {"gradients": held}, held + max(flat, as_fp32), 4 * weights)
    buckets = _buckets(setup)
    if setup.offloads:
        held = (4 * shard if apart else 0) + ((4 if apart else of) * weights if setup.stage < 2 else 0)
        backward = {"gradients": held, "reduce buckets": buckets + of * largest}
        return Gradients(held if several else 0, backward, held, 0)
    if apart:  # a flat fp32 shard, which the update takes as it is
        held = 4 * shard
        return Gradients(held if several else 0, {"gradients": held, "reduce buckets": buckets}, held, 4 * shard)
    # at stage 2 each micro-batch has a shard of its own, added to the first; the update flattens, and takes fp32
    held = of * shard
    second = of * shard if several else 0
    backward = {"gradients": held, "second gradients": second, "reduce buckets": buckets}
    as_fp32 = 4 * shard if of != 4 else 0
    return Gradients(held if several else 0, backward, held + of * shard + as_fp32, 4 * shard)


def _buckets(setup: Setup) -> int:
    """Bytes of reduce buckets, which are allocated in full at every way back whatever is in them.

    One more where there are several ranks: what belongs to several of them is flattened once more (allreduce_bucket).
    """
    staged = 4 if setup.stage == 1 and setup.accumulates_apart else setup.weight_bytes
    return setup.bucket * staged * (setup.buckets + (setup.ranks > 1))


def _present(parts: Mapping[str, int]) -> dict[str, int]:
    return {name: size for name, size in parts.items() if size}
