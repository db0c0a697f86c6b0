"""The guard: what to do about an update that was not applied, as a loss or the gradients were NaN or infinite."""

import contextlib
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from refiner_ds.batch import Batch
from refiner_ds.checkpoint.place import Gather, Place
from refiner_ds.data.stream import Stream
from refiner_ds.refiners.protocol import Refiner, scalars
from refiner_ds.train.engine import Engine
from refiner_ds.train.event import Suspect, folder_of, in_words, title_of, write_event

TOLD = 3
"""Suspects that a sentence names."""


@dataclass(frozen=True)
class Finding:
    """What was found, in a sentence, and whether the run ends with it; the same on all ranks."""

    sentence: str
    ends: bool


class Guard:
    """Looks at updates that were not applied. All ranks have one and call it alike.

    Args:
        stream: as the training's; it is read here and now, without workers.
        run: folder of the run, in which events are kept.
        facts: what an event says of its run: seed, precision.
        allowed: updates that may be skipped before the run ends.
        count: how many have been skipped so far.
    """

    def __init__(
        self,
        refiner: Refiner,
        engine: Engine,
        stream: Stream,
        place: Place,
        gathered: Gather,
        run: Path,
        facts: Mapping[str, Any],
        allowed: int,
        count: int,
    ) -> None:
        self._refiner, self._engine, self._stream = refiner, engine, stream
        self._place, self._gathered, self._run, self._facts = place, gathered, run, facts
        self._allowed, self.count = allowed, count

    def look(self, step: int, micro_losses: Sequence[Tensor]) -> Finding | None:
        """Finds out about update number `step` = 0, 1, ...; None for an overflow that lowers the fp16 loss scale.

        Samples whose own loss is not finite are the suspects; where every loss is finite, all samples of the update.
        """
        losses = torch.stack([*micro_losses]).tolist()
        has_lost = not all(math.isfinite(loss) for rank in self._gathered(losses) for loss in rank)
        if self._engine.scale_adapts and not has_lost:
            is_over = self._engine.scale_was_lowest
            return Finding(_no_lower(step + 1, self._engine.loss_scale), ends=True) if is_over else None
        suspects = [*self._suspects(step, [not (has_lost and math.isfinite(loss)) for loss in losses])]
        folder = folder_of(self._run, step + 1)
        norm = in_words(float(self._engine.gradient_norm))
        facts = {"step": step + 1, "completed_steps": step, "gradient_norm": norm, **self._facts}
        told, fault = write_event(folder, facts, suspects, self._place, self._gathered)
        ends = self.count >= self._allowed
        self.count += not ends
        what = f"step {step + 1}: {_what(told, has_lost, self._stream.order.global_batch_size)}"
        where = f"which could not be kept ({fault})" if fault else f"kept in {folder}"
        return Finding(f"{what}, {where}, {_rule(folder, self.count, self._allowed, ends)}", ends)

    def _suspects(self, step: int, is_suspected: Sequence[bool]) -> Iterator[Suspect]:
        """The suspects of this rank in the micro-batches that are suspected; their pictures are read once more."""
        with contextlib.closing(self._stream.batches(step, step + 1)) as batches:
            for batch, suspected in zip(batches, is_suspected, strict=True):
                if suspected:
                    found = [self._suspect(batch.alone(number)) for number in range(len(batch))]
                    yield from [each for each in found if not each.is_finite] or found

    @torch.no_grad()
    def _suspect(self, batch: Batch) -> Suspect:
        """A sample with its losses, which the weights of before the update give; no other rank is waited for."""
        seed, network = self._facts["seed"], self._refiner.network
        features = self._refiner.encode(batch.to(self._engine.device))
        with self._engine.eagerly():  # one sample without gradients would be compiled for itself
            losses = self._refiner.loss(network, self._engine.dtype, features, seed)
        told = {
            "key": batch.keys[0],
            "position": batch.positions[0],
            "rank": self._place.rank,
            "losses": {name: in_words(float(loss)) for name, loss in scalars(losses).items()},
            "drawn": self._refiner.drawn(batch.positions, seed)[0],
        }
        return Suspect(batch, told)


def carried(loss: Tensor) -> Tensor:
    """The same loss to go back from, with gradients that are NaN where it is not finite. Nothing waits for the device.

    DeepSpeed looks at gradients alone, and those of an infinite loss can be finite, as squares overflow first.
    """
    return loss * (1 + 0 * loss.detach())


def _what(told: Sequence[Mapping[str, Any]], has_lost: bool, global_batch_size: int) -> str:
    """What is not finite, and of which samples."""
    names = ", ".join(f"{title_of(each)} on rank {each['rank']}" for each in told[:TOLD])
    more = f" and {len(told) - TOLD} more" if len(told) > TOLD else ""
    if not has_lost:
        return f"the gradients are NaN or infinite and every loss is finite; the samples are {names}{more}"
    every = "every sample, so the weights are to blame: " if len(told) == global_batch_size > 1 else ""
    return f"the loss is NaN or infinite for {every}{names}{more}"


def _rule(folder: Path, count: int, allowed: int, ends: bool) -> str:
    if not ends:
        return f"and the update is skipped, {count} of --max_nonfinite_steps {allowed}"
    return (
        f"and --max_nonfinite_steps {allowed} allows no {'other' if allowed else 'such'} update, so the run ends; "
        f"look for the cause with `refiner-ds replay {folder}`, lower --learning_rate, or allow more to be skipped."
    )


def _no_lower(step: int, scale: float) -> str:
    return (
        f"step {step}: gradients overflow in fp16 at loss scale {scale:g}, which is min_loss_scale of the DeepSpeed "
        "JSON, so every further update would be skipped; train on in bf16 (ds_configs/zero2_bf16.json), lower "
        "--learning_rate, or lower min_loss_scale where it is above 1."
    )
