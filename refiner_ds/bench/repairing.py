"""Repairing pictures by two ways: ours, and GaussianRefiner's, played again in our own words from its description."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from diffusers.utils.torch_utils import randn_tensor
from torch import Tensor

from refiner_ds.batch import Batch, to_unit
from refiner_ds.bench.baseline_parts import BaselineParts, use_both_halves
from refiner_ds.bench.turns import Contender, Way
from refiner_ds.bench.turns_report import BASELINE, OURS, Subject
from refiner_ds.chance import key_of
from refiner_ds.refiners.protocol import Sampling
from refiner_ds.refiners.unclip.parts import Parts, load_parts
from refiner_ds.refiners.unclip.portable.mutual_attention import make_refiner, pairs_of, rows_of
from refiner_ds.refiners.unclip.portable.unclip_refiner_pipeline import NEGATIVE_PROMPT, PROMPT
from refiner_ds.refiners.unclip.refiner import UnclipRefiner

REPAIR = Subject("repair", "picture", ((OURS, BASELINE),))
CPU = torch.device("cpu")


def contenders(
    base: Path, batch: Batch, sampling: Sampling, dtype: torch.dtype, device: torch.device
) -> list[Contender]:
    """Both ways in one precision, from the same weights and start noise; a step repairs the batch."""
    refiner = UnclipRefiner(str(base), frozen_dtype=dtype)
    parts = load_parts(str(base), frozen_dtype=dtype)
    make_refiner(parts.unet)
    return [
        Contender(OURS, dtype, lambda: Ours(refiner, batch, sampling, dtype, device)),
        Contender(BASELINE, dtype, lambda: Baseline(parts, batch, sampling, dtype, device)),
    ]


class Ours(Way):
    """The exported pipeline's own repair: references pass the network once, targets at every step."""

    def __init__(
        self, refiner: UnclipRefiner, batch: Batch, sampling: Sampling, dtype: torch.dtype, device: torch.device
    ) -> None:
        self._refiner, self._batch, self._sampling = refiner, batch, sampling
        self._dtype, self._device = dtype, device
        refiner.place(device, dtype, whole=True)

    def repair(self) -> Tensor:
        """(B, 3, H, W) uint8."""
        there = self._batch.to(self._device)
        return self._refiner.repair(there.render, there.cond[:, None], [*there.positions], self._sampling)

    def step(self) -> Tensor:
        """Repairs the batch; the mean of its pictures."""
        return self.repair().float().mean()

    def close(self) -> None:
        """Takes all parts from the device."""
        self._refiner.place(CPU, self._dtype, whole=True)


class Baseline(Way):
    """Both rows of a pair pass the network at every step and in each half of guidance; a VAE encode for each view."""

    def __init__(
        self, parts: Parts, batch: Batch, sampling: Sampling, dtype: torch.dtype, device: torch.device
    ) -> None:
        pairs = zip(to_unit(batch.render), to_unit(batch.cond), strict=True)
        self._samples = [{"render": render, "cond": cond} for render, cond in pairs]
        self._seeds, self._sampling, self._dtype, self._device = batch.positions, sampling, dtype, device
        self._parts, self._scheduler = BaselineParts(parts, device, dtype), parts.scheduler
        self._network: Any = parts.unet.requires_grad_(False).eval().to(device, dtype)
        use_both_halves(self._network)

    @torch.no_grad()
    def repair(self) -> Tensor:
        """(B, 3, H, W) uint8."""
        views, pixels = self._parts.prepared(self._samples)
        render, reference = (self._parts.latents(views[view]) for view in ("render", "cond"))
        embedding = self._parts.embedding(pixels)
        chance: Any = [torch.Generator().manual_seed(key_of(seed, "repair")) for seed in self._seeds]
        start = randn_tensor(render.shape, chance, self._device, self._dtype)
        vector = self._parts.class_vector(embedding, randn_tensor(embedding.shape, chance, self._device))
        decoded = self._parts.pictures(self._sampled(render, reference, start, vector))
        return ((decoded.float().clamp(-1, 1) + 1.0) * 127.5).round().to(torch.uint8)

    def step(self) -> Tensor:
        """Repairs the batch; the mean of its pictures."""
        return self.repair().float().mean()

    def close(self) -> None:
        """Takes all parts from the device."""
        self._parts.close()
        self._network.to(CPU)

    def _sampled(self, render: Tensor, reference: Tensor, start: Tensor, vector: Tensor) -> Tensor:
        """The sampling loop on latents (B, c, h, w) with the class vector (B, 2 d)."""
        scale = self._sampling.guidance_scale
        halves = 2 if scale != 1.0 else 1
        texts = self._parts.text((NEGATIVE_PROMPT, PROMPT)[-halves:]).repeat_interleave(2 * len(render), dim=0)
        vectors = torch.cat([torch.zeros_like(vector), vector][-halves:]).repeat_interleave(2, dim=0).to(self._dtype)
        beside = render.repeat_interleave(2, dim=0)
        scheduler = type(self._scheduler).from_config(self._scheduler.config)
        scheduler.set_timesteps(self._sampling.num_inference_steps, device=self._device)
        rows = rows_of(reference, start * scheduler.init_noise_sigma)
        for timestep in scheduler.timesteps:
            times = torch.stack([torch.zeros_like(timestep), timestep]).repeat(halves * len(render))
            predicted = self._network(
                torch.cat([scheduler.scale_model_input(rows, timestep), beside], dim=1).repeat(halves, 1, 1, 1),
                times,
                encoder_hidden_states=texts,
                class_labels=vectors,
            ).sample
            rows = scheduler.step(_guided(predicted.chunk(halves), scale), timestep, rows).prev_sample
            rows = rows_of(reference, pairs_of(rows)[1])
        return pairs_of(rows)[1]


def _guided(halves: Sequence[Tensor], scale: float) -> Tensor:
    """From the bad half to the good one; the latter alone where there is no guidance."""
    bad, good = halves[0], halves[-1]
    return bad + scale * (good - bad) if len(halves) == 2 else good
