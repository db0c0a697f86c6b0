"""Which file of ds_configs/ to take: a rule over what each would need and what the device has."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from refiner_ds.estimate.memory import Setup

USABLE = 0.9
"""Share of a device's memory to plan with: the rest goes to the driver's context, NCCL and what lies between blocks."""
SEVERAL = 2
"""Accumulation steps from which on ZeRO-1 sends far less than ZeRO-2, which reduces in each: training's note too."""


@dataclass(frozen=True)
class Choice:
    """A file of ds_configs/, as far as it matters here."""

    file: str
    stage: int
    precision: str
    offloads: bool = False

    def applied_to(self, setup: Setup, bucket: int) -> Setup:
        """A run's setup with this file in place of its own, its precision aside."""
        return replace(
            setup,
            stage=self.stage,
            offloads=self.offloads,
            bucket=bucket,
            buckets=1,
            has_fp32_accumulation=self.precision != "no",
        )


CHOICES = (
    Choice("zero2_bf16.json", 2, "bf16"),
    Choice("zero1_bf16.json", 1, "bf16"),
    Choice("zero2_offload.json", 2, "bf16", offloads=True),
    Choice("zero2_fp16.json", 2, "fp16"),
    Choice("zero2_fp32.json", 2, "no"),
)
"""All but zero2.json, which is one of these by --mixed_precision."""


@dataclass(frozen=True)
class Advice:
    """The file to take and why; without a file nothing fits, and the reason says what to change."""

    file: str | None
    reason: str


@dataclass(frozen=True)
class Saving:
    """Blocks that could be computed twice, what arithmetic is multiplied by then, and the bytes needed by file."""

    blocks: str
    arithmetic: float
    needs: Mapping[str, int]


def advise(
    needs: Mapping[str, int],
    memory: int,
    precision: str,
    ranks: int,
    accumulation: int,
    savings: Sequence[Saving],
) -> Advice:
    """The first file of the precision that fits, in the order in which they are fast.

    Args:
        needs: bytes on the device by file.
        memory: bytes of the device.
        savings: what would need less, the fastest first.
    """
    accumulates = ranks > 1 and accumulation >= SEVERAL
    reasons = {
        "zero2_bf16.json": "gradients and optimizer sharded, the least memory without offload"
        if ranks > 1
        else "the one in bf16, of which one rank shards nothing",
        "zero1_bf16.json": f"{accumulation} accumulation steps, at each of which ZeRO-2 would reduce all gradients",
        "zero2_offload.json": "only with the optimizer on the CPU does it fit; steps are slower",
        "zero2_fp16.json": "the one in fp16",
        "zero2_fp32.json": "the one without mixed precision",
    }
    order = _order(precision, accumulates)
    room = int(memory * USABLE)
    fitting = [file for file in order if needs[file] <= room]
    if fitting:
        reason = reasons[fitting[0]]
        if accumulates and fitting[0] == "zero2_bf16.json":
            reason += "; ZeRO-1, which exchanges less, does not fit"
        return Advice(fitting[0], reason)
    for saving in savings:
        if found := [file for file in order if saving.needs[file] <= room]:
            flags = f"--gradient_checkpointing --checkpointed_blocks {saving.blocks}"
            return Advice(found[0], f"it fits only with {flags}, which computes {saving.arithmetic - 1:.0%} more")
    return Advice(
        None,
        "none fits, even with --gradient_checkpointing; take a smaller --train_batch_size, smaller --buckets, more "
        "ranks, --lora_rank, or a device with more memory",
    )


def _order(precision: str, accumulates: bool) -> list[str]:
    files = [choice.file for choice in CHOICES if choice.precision == precision]
    if precision == "bf16":
        first, second, last = files
        # alone, or without accumulation, ZeRO-1 saves no exchange that would be worth its gradients
        return [second, first, last] if accumulates else [first, last]
    return files
