"""The frozen encoders by three ways: ours, the baseline's, and the baseline's without the reading of its pictures."""

import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

from refiner_ds.batch import Batch
from refiner_ds.bench.baseline_parts import BaselineParts, dtype_on, read
from refiner_ds.bench.step_material import Material
from refiner_ds.bench.turns import Contender, Way
from refiner_ds.bench.turns_report import BASELINE, OURS, Subject
from refiner_ds.refiners.unclip.parts import Parts, load_parts
from refiner_ds.refiners.unclip.refiner import UnclipRefiner

IN_MEMORY = "baseline's way, pictures in memory"
ENCODING = Subject("encoding", "pair", ((OURS, BASELINE), (OURS, IN_MEMORY)))
CPU = torch.device("cpu")

Samples = Sequence[Mapping[str, Tensor]]
"""Crops by view, (3, H, W) in [-1, 1] each."""


def contenders(base: Path, material: Material, dtype: torch.dtype, device: torch.device) -> list[Contender]:
    """All ways, from the same weights, which are on the device only where they work; a step is one micro-batch."""
    refiner = UnclipRefiner(str(base), frozen_dtype=dtype)
    parts, theirs = load_parts(str(base), frozen_dtype=dtype_on(device)), dtype_on(device)
    (batch,), (files,) = material.batches, material.files
    waiting = batch.pin_memory() if device.type == "cuda" else batch
    samples = read(files, material)
    return [
        Contender(OURS, dtype, lambda: _Ours(refiner, waiting, device, dtype)),
        Contender(BASELINE, theirs, lambda: _Baseline(parts, lambda: read(files, material), device)),
        Contender(IN_MEMORY, theirs, lambda: _Baseline(parts, lambda: samples, device)),
    ]


class _Ours(Way):
    """Training's own encoding of a batch that a loader has delivered: one VAE encode for all views, CLIP's pixels made
    on the device."""

    def __init__(self, refiner: UnclipRefiner, batch: Batch, device: torch.device, dtype: torch.dtype) -> None:
        self._refiner, self._batch, self._device, self._dtype = refiner, batch, device, dtype
        refiner.place(device, dtype)

    def step(self) -> Tensor:
        """Encodes the micro-batch; see `_told`."""
        features = self._refiner.encode(self._batch.to(self._device))
        return _told(features.render, features.gt, features.cond, features.embedding)

    def close(self) -> None:
        """Takes the frozen parts from the device."""
        self._refiner.place(CPU, self._dtype)


class _Baseline(Way):
    """A VAE encode for each view, CLIP's pixels made on the CPU; fp16 on a GPU, under autocast as there."""

    def __init__(self, parts: Parts, read: Callable[[], Samples], device: torch.device) -> None:
        self._read, self._device, self._dtype = read, device, dtype_on(device)
        self._parts, self._waited = BaselineParts(parts, device, self._dtype), 0.0

    @property
    def waited(self) -> float:
        """Seconds so far in which it has read and cut pictures."""
        return self._waited

    def step(self) -> Tensor:
        """Encodes the micro-batch; see `_told`."""
        with torch.autocast(self._device.type, torch.float16, enabled=self._dtype == torch.float16):
            began = time.perf_counter()
            samples = self._read()
            self._waited += time.perf_counter() - began
            views, pixels = self._parts.prepared(samples)
            latents = [self._parts.latents(views[view]) for view in ("render", "gt", "cond")]
            return _told(*latents, self._parts.embedding(pixels))

    def close(self) -> None:
        """Takes the frozen parts from the device."""
        self._parts.close()


def _told(*features: Tensor) -> Tensor:
    """A scalar of all features: the sum of their mean sizes."""
    return torch.stack([each.float().abs().mean() for each in features]).sum()
