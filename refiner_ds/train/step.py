"""The training step."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from refiner_ds.batch import Batch
from refiner_ds.refiners.protocol import Refiner
from refiner_ds.train.engine import Engine
from refiner_ds.train.guard import carried
from refiner_ds.train.work import Work


@dataclass(frozen=True)
class StepResult:
    """What one optimizer step leaves for the log, still on the device: mean losses by name, and the gradient norm.

    `replaced` are the broken samples of this rank that others stood in for, a sentence each; `micro_losses` the loss of
    each of its micro-batches.
    """

    losses: dict[str, Tensor]
    gradient_norm: Tensor
    replaced: tuple[str, ...] = ()
    micro_losses: tuple[Tensor, ...] = ()


def optimizer_step(
    refiner: Refiner,
    engine: Engine,
    batches: Iterator[Batch],
    work: Work,
    accumulation_steps: int,
    learning_rate: float,
    seed: int,
    goes_on: Callable[[], bool],
) -> StepResult | None:
    """One update of the weights from `accumulation_steps` micro-batches. All ranks must call.

    None where `goes_on`, which is asked before each micro-batch, says no: the weights are those of before, and what was
    accumulated is computed again by the run that continues.
    """
    engine.set_learning_rate(learning_rate)
    by_micro_batch: list[dict[str, Tensor]] = []
    replaced: tuple[str, ...] = ()
    for _ in range(accumulation_steps):
        if not goes_on():
            return None

        # Encode the pictures with the frozen parts, predict, compare.
        batch = next(batches)
        with work.forth(tuple(batch.render.shape)):
            features = refiner.encode(batch.to(engine.device))
            losses = refiner.loss(engine.network, engine.dtype, features, seed)

        # Accumulate gradients; the last micro-batch updates the weights.
        with work.back():
            engine.backward(carried(losses["loss"]))
        engine.step()

        # Keep the losses on the device; reading one here would wait for it.
        by_micro_batch.append({name: loss.detach() for name, loss in losses.items()})
        replaced += batch.replaced
    means = {name: torch.stack([each[name] for each in by_micro_batch]).mean(dim=0) for name in by_micro_batch[0]}
    return StepResult(means, engine.gradient_norm, replaced, tuple(each["loss"] for each in by_micro_batch))
