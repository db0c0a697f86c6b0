"""The ways of `refiner-ds bench step`: training's own step in its engine, and those that it is set against."""

import copy
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from refiner_ds.batch import Batch
from refiner_ds.bench.baseline_parts import dtype_on
from refiner_ds.bench.encoded import Shape
from refiner_ds.bench.step_baseline import BaselineWay
from refiner_ds.bench.step_floor import BareLoop
from refiner_ds.bench.step_material import Material
from refiner_ds.bench.step_report import BARE, COMPILED, ENCODED, FROM_ENCODED, FROM_SHARDS
from refiner_ds.bench.step_supply import Source, Supply, from_memory
from refiner_ds.bench.turns import Contender, Way
from refiner_ds.bench.turns_report import BASELINE, OURS
from refiner_ds.config.deepspeed import Resolved
from refiner_ds.refiners.unclip.options import Recipe
from refiner_ds.refiners.unclip.parts import load_parts
from refiner_ds.refiners.unclip.portable.mutual_attention import make_refiner
from refiner_ds.refiners.unclip.refiner import UnclipRefiner
from refiner_ds.train.engine import Engine
from refiner_ds.train.precision import DTYPES
from refiner_ds.train.step import optimizer_step
from refiner_ds.train.work import Work
from refiner_ds.verbs.bench_model import SEED

RATE = 1e-4
CPU = torch.device("cpu")


def contenders(
    base: Path,
    material: Material,
    resolved: Resolved,
    device: torch.device,
    compiles: bool,
    sources_for: Callable[[Shape], Sequence[Source]],
) -> list[Contender]:
    """All ways, each starting anew from the same weights; the frozen parts are on the device only where they work.

    Args:
        compiles: ours with a compiled network takes part too.
        sources_for: shards that ours trains from too, told the shape of what the encoders make.
    """
    dtype = DTYPES[resolved.precision]
    refiner = UnclipRefiner(str(base), frozen_dtype=dtype)
    sources = sources_for(Shape(refiner.latent_channels, refiner.crop_factor, refiner.embedding_size))
    parts = load_parts(str(base), frozen_dtype=dtype_on(device))
    make_refiner(parts.unet)
    refiner.place(device, dtype)
    refiner.prepare_training(Recipe())
    there = [batch.to(device) for batch in material.batches]
    features = {batch.positions: refiner.encode(batch) for batch in there}
    refiner.place(CPU, dtype)
    waiting = [batch.pin_memory() for batch in material.batches] if device.type == "cuda" else material.batches

    def encoded(compiles: bool) -> _Ours:
        return _Ours(refiner, _Encoded(refiner, features), from_memory(there), resolved, device, compiles)

    def from_shards(source: Source) -> _Ours:
        encoding = _Stored(refiner) if source.is_encoded else refiner
        return _Ours(refiner, encoding, source.open(), resolved, device)

    return [
        Contender(OURS, dtype, lambda: _Ours(refiner, refiner, from_memory(waiting), resolved, device)),
        Contender(ENCODED, dtype, lambda: encoded(False)),
        *([Contender(COMPILED, dtype, lambda: encoded(True))] if compiles else []),
        *(
            Contender(FROM_ENCODED if source.is_encoded else FROM_SHARDS, dtype, partial(from_shards, source))
            for source in sources
        ),
        Contender(
            BARE,
            dtype,
            lambda: BareLoop(refiner, copy.deepcopy(refiner.network), dtype, [*features.values()], device, RATE, SEED),
        ),
        Contender(
            BASELINE, dtype_on(device), lambda: BaselineWay(parts, copy.deepcopy(parts.unet), material, device, RATE)
        ),
    ]


class _Ours(Way):
    """Training's own step on one rank."""

    def __init__(
        self,
        refiner: UnclipRefiner,
        encoding: Any,
        supply: Supply,
        resolved: Resolved,
        device: torch.device,
        compiles: bool = False,
    ) -> None:
        """encoding: the refiner as the step sees it; where it is the refiner itself, its frozen parts are used."""
        self._refiner, self._encoding, self._supply, self._resolved = refiner, encoding, supply, resolved
        if encoding is refiner:
            refiner.place(device, DTYPES[resolved.precision])
        self._engine = Engine(copy.deepcopy(refiner.network), resolved, device, compiles=compiles)
        self._work = Work(device, self._engine.eagerly if compiles else None)

    @property
    def waited(self) -> float:
        """Seconds so far that its steps have waited for a micro-batch."""
        return self._supply.waited

    def step(self) -> Tensor:
        """One update; the loss of the first micro-batch."""
        count = self._resolved.accumulation_steps
        done = optimizer_step(self._encoding, self._engine, self._supply, self._work, count, RATE, SEED, lambda: True)
        assert done, "nothing has asked it to stop"
        return done.micro_losses[0]

    def settle(self) -> None:
        """Lets go of the micro-batches that were read ahead."""
        self._supply.settle()

    def close(self) -> None:
        """Ends the engine and whoever reads, and takes the frozen parts from the device."""
        self._supply.close()
        self._engine.close()
        self._refiner.place(CPU, DTYPES[self._resolved.precision])


class _Stored:
    """A refiner that is given latents, so that its encoders have nothing to do."""

    def __init__(self, refiner: UnclipRefiner) -> None:
        self.encode, self.loss = refiner.encode, refiner.loss


class _Encoded:
    """A refiner whose batches have been encoded beforehand."""

    def __init__(self, refiner: UnclipRefiner, features: Mapping[tuple[int, ...], Any]) -> None:
        self._features, self.loss = features, refiner.loss

    def encode(self, batch: Batch) -> Any:
        """The features that are there, by the positions of the batch."""
        return self._features[batch.positions]
