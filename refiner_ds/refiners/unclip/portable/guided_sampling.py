"""The sampling loop on latents: the sources once, then the targets step by step, in tiles, between two prompts."""

import inspect
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from .mutual_attention import Memory, PairsApart
from .overlapping_tiles import Tiles

CONDITIONS = ("render", "embedding", "reference")
"""What the bad half of guidance may go without."""


@torch.no_grad()
def sample(
    unet: Any,
    scheduler: Any,
    num_inference_steps: int,
    tiles: Tiles,
    render: Tensor,
    source: Tensor,
    start: Tensor,
    conditions: "Conditions",
    generator: Any,
    bar: Any,
) -> Tensor:
    """Repaired latents (B, c, h, w) fp32, from render and start noise (B, c, h, w) and R sources of each (B * R, ...).

    Keys and values of all tiles but the one at work wait on the CPU, where there is more than one: the device holds
    those of one tile however large the picture is.

    Args:
        generator: one or B of them, for samplers that draw at every step.
        bar: of progress, to be updated after every step.
    """
    device, renders = render.device, tiles.of(render)
    waits_at = torch.device("cpu") if len(tiles) > 1 else device
    scheduler = type(scheduler).from_config(scheduler.config)  # a sampler's memory belongs to one call
    scheduler.set_timesteps(num_inference_steps, device=device)
    chance = {"generator": generator} if "generator" in inspect.signature(scheduler.step).parameters else {}
    target = start * scheduler.init_noise_sigma
    bar.total = len(scheduler.timesteps)

    def predict_rows(rows: Tensor, timestep: Tensor) -> Tensor:
        return unet(
            rows.to(unet.dtype),
            timestep.expand(len(rows)),
            encoder_hidden_states=conditions.texts(len(rows)).to(unet.dtype),
            class_labels=conditions.vectors(len(rows)).to(unet.dtype),
        ).sample.float()

    def remember(pairs: PairsApart, sources: Tensor, around: Tensor) -> Memory:
        """Runs source rows (B * R, c, h, w), each beside its render (B, c, h, w), at timestep 0."""
        beside = around.repeat_interleave(pairs.num_references, dim=0)
        rows = torch.cat([conditions.references(sources), conditions.renders(beside)], dim=1)
        return _moved(pairs.remember(lambda: predict_rows(rows, torch.zeros((), device=device))), waits_at)

    with PairsApart(unet, len(source) // len(render)) as pairs:
        kept = [remember(pairs, *piece) for piece in zip(tiles.of(source), renders, strict=True)]
        for timestep in scheduler.timesteps:
            pieces = tiles.of(scheduler.scale_model_input(target, timestep))

            def predict(number: int, pieces: list[Tensor] = pieces, timestep: Tensor = timestep) -> Tensor:
                pairs.attend_to(_moved(kept[number], device))
                rows = torch.cat([conditions.halves(pieces[number]), conditions.renders(renders[number])], dim=1)
                return conditions.guided(predict_rows(rows, timestep))

            target = scheduler.step(tiles.blend(predict), timestep, target, **chance).prev_sample
            bar.update()
    return target


def _moved(memory: Memory, device: torch.device) -> Memory:
    return {name: (key.to(device), value.to(device)) for name, (key, value) in memory.items()}


class Conditions:
    """What both halves of guidance are told; one half alone where there is no guidance. The bad half comes first."""

    def __init__(self, texts: Tensor, vector: Tensor, scale: float, unguided: Sequence[str]) -> None:
        """texts: (2, tokens, d) of the bad and the good prompt; vector: (B, 2 d)."""
        self._scale, self._unguided = scale, unguided
        self._halves = 2 if scale != 1.0 else 1
        self._texts, self._vectors = texts[-self._halves :], self._dropped("embedding", vector)

    def halves(self, rows: Tensor) -> Tensor:
        """(n, ...) rows for every half: (halves * n, ...)."""
        return rows.repeat(self._halves, *[1] * (rows.dim() - 1))

    def renders(self, rows: Tensor) -> Tensor:
        """The same of render latents, zero where the bad half goes without."""
        return self._dropped("render", rows)

    def references(self, rows: Tensor) -> Tensor:
        """The same of reference latents."""
        return self._dropped("reference", rows)

    def texts(self, num_rows: int) -> Tensor:
        """Text states for (halves * n) rows."""
        return self._texts.repeat_interleave(num_rows // self._halves, dim=0)

    def vectors(self, num_rows: int) -> Tensor:
        """Class vectors for (halves * B * references) rows."""
        return self._vectors.repeat_interleave(num_rows // len(self._vectors), dim=0)

    def guided(self, predicted: Tensor) -> Tensor:
        """(halves * B, ...) predictions led from the bad to the good: (B, ...)."""
        if self._halves == 1:
            return predicted
        bad, good = predicted.chunk(2)
        return bad + self._scale * (good - bad)

    def _dropped(self, name: str, rows: Tensor) -> Tensor:
        bad = torch.zeros_like(rows) if name in self._unguided else rows
        return torch.cat([bad, rows][-self._halves :])
