"""All that a plan says, as plain values; what follows from several of them; and the JSON of it."""

from dataclasses import asdict, dataclass, replace
from typing import Any

from refiner_ds.estimate.activations import MicroBatch
from refiner_ds.estimate.advice import Advice
from refiner_ds.estimate.memory import Bill, Setup, bill
from refiner_ds.estimate.parameters import Counts
from refiner_ds.estimate.time import Rate, hours
from refiner_ds.estimate.traffic import Traffic, traffic
from refiner_ds.refiners.protocol import Checkpointed

REFUSED = {
    0: "refused by training: in 16 bits it starts AdamW one step late",
    3: "refused by training: as DeepSpeed gathers by default, it saves nothing at this size",
}
"""Stages that are there to compare with, and why training does not take them."""
NO_FP16_OFFLOAD = "refused by training: after an overflow DeepSpeed skips all updates"


@dataclass(frozen=True)
class Column:
    """One setup and its memory. `refused` says why training does not take it; none where it does."""

    name: str
    setup: Setup
    bill: Bill
    is_yours: bool
    refused: str | None


@dataclass(frozen=True)
class Run:
    """How far a run goes; None where nothing says it."""

    micro_batch_size: int
    accumulation_steps: int
    global_batch_size: int
    steps: int | None
    epochs: float | None
    samples: int | None

    @property
    def pairs(self) -> int | None:
        """Pairs seen over the run."""
        return None if self.steps is None else self.steps * self.global_batch_size


@dataclass(frozen=True)
class Disk:
    """Bytes of one checkpoint, how many lie in the output folder at most, and their bytes; None where nothing says."""

    one: int
    count: int | None

    @property
    def most(self) -> int | None:
        """Bytes of the output folder's checkpoints at most."""
        return None if self.count is None else self.one * self.count


@dataclass(frozen=True)
class Findings:
    """A plan. `batches` are the buckets', the largest crop first, by the blocks that are computed twice; `checkpointed`
    are those of the run.
    """

    base: str
    precision: str
    ranks: int
    counts: Counts
    batches: dict[Checkpointed, tuple[MicroBatch, ...]]
    checkpointed: Checkpointed
    columns: tuple[Column, ...]
    run: Run
    disk: Disk
    exchange: dict[str, Traffic]
    link_gigabits: float | None
    rate: Rate | None
    memory: int | None
    advice: Advice | None

    @property
    def hours(self) -> float | None:
        """Of training, without checkpoints and validations; None without a rate or a length."""
        if self.rate is None or self.run.pairs is None:
            return None
        return hours(self.run.pairs, self.rate, self.ranks)


def columns_of(counts: Counts, yours: Setup, batch: MicroBatch) -> tuple[Column, ...]:
    """The given setup among the stages 0 to 3 and stage 2 with offload, each for the same micro-batch."""
    setups = [replace(yours, stage=stage, offloads=False) for stage in (0, 1, 2, 3)]
    setups.append(replace(yours, stage=2, offloads=True))
    if yours not in setups:
        setups.append(yours)
    return tuple(
        Column(_name(setup), setup, bill(counts, setup, batch), setup == yours, _refusal(setup)) for setup in setups
    )


def exchange_of(counts: Counts, setup: Setup) -> dict[str, Traffic]:
    """Traffic of one optimizer step at the stages that training takes."""

    def of(stage: int) -> Traffic:
        weights, ranks, accumulation = counts.trained, setup.ranks, setup.accumulation
        return traffic(weights, ranks, stage, accumulation, setup.weight_bytes, setup.offloads)

    return {f"ZeRO-{stage}": of(stage) for stage in (1, 2)}


def as_json(found: Findings) -> dict[str, Any]:
    """Everything, sizes in bytes."""
    told = asdict(found)
    for column, of in zip(told["columns"], found.columns, strict=True):
        column["bill"] |= {"moments": of.bill.moments, "total": of.bill.total}
    for name, one in found.exchange.items():
        told["exchange"][name]["seconds"] = one.seconds(found.link_gigabits) if found.link_gigabits else None
    told["run"]["pairs"], told["disk"]["most"], told["hours"] = found.run.pairs, found.disk.most, found.hours
    return told


def _name(setup: Setup) -> str:
    return f"ZeRO-{setup.stage}{' offload' if setup.offloads else ''}"


def _refusal(setup: Setup) -> str | None:
    if setup.offloads and setup.weight_bytes == 2 and not setup.is_bf16:
        return NO_FP16_OFFLOAD
    return REFUSED.get(setup.stage)
