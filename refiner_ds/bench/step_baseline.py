"""The cost of the public training script's step, played again in our own words from its description.

Where it does what, how often and in which precision is as there; noise comes from torch's ordinary generator. It
reduces gradients in every micro-step, which costs one rank nothing, so a cluster would see a larger difference.
"""

import time
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import mse_loss

from refiner_ds.bench.baseline_parts import BaselineParts, dtype_on, read, use_both_halves
from refiner_ds.bench.step_material import Material
from refiner_ds.bench.turns import Way
from refiner_ds.refiners.unclip.objective import DROPPED
from refiner_ds.refiners.unclip.parts import Parts

DROPOUT = 0.05
"""Probability of each case of dropped conditions."""
MAX_NORM = 1.0


class BaselineWay(Way):
    """Reads PNG in the process that trains, encodes in every micro-step, waits for the device twice in each.

    On a GPU the frozen parts are of fp16 and the network of fp32 under autocast to fp16; on a CPU all is of fp32.
    """

    def __init__(
        self, parts: Parts, network: nn.Module, material: Material, device: torch.device, learning_rate: float
    ) -> None:
        """network: the refiner's, on the CPU; its self-attention is replaced."""
        self._material, self._device, self._dtype = material, device, dtype_on(device)
        self._parts = BaselineParts(parts, device, self._dtype)
        self._network = network.to(device, torch.float32).train()
        use_both_halves(network)
        self._optimizer = torch.optim.AdamW(self._network.parameters(), lr=learning_rate, weight_decay=0.01)
        self._scaler = torch.amp.GradScaler(device.type, enabled=device.type == "cuda")
        self._alphas = parts.scheduler.alphas_cumprod.to(device)
        self._text = self._parts.text([""])
        self._kept = 1.0 - torch.tensor([*DROPPED, (False,) * 3], dtype=torch.float32, device=device)
        self.shown, self.logged, self._waited = 0.0, 0.0, 0.0

    @property
    def waited(self) -> float:
        """Seconds so far in which it has read and cut pictures."""
        return self._waited

    def step(self) -> Tensor:
        """One update from all micro-batches; the loss of the first."""
        losses, count, total = [], len(self._material.files), 0.0
        for files in self._material.files:
            with torch.autocast(self._device.type, torch.float16, enabled=self._dtype == torch.float16):
                loss = self._loss(*self._parts.prepared(self._read(files)))
            total += loss.detach().repeat(len(files)).mean().item() / count
            self._scaler.scale(loss / count).backward()
            self.shown = loss.detach().item()
            losses.append(loss.detach())
        self.logged = total
        self._scaler.unscale_(self._optimizer)
        torch.nn.utils.clip_grad_norm_(self._network.parameters(), MAX_NORM)
        self._scaler.step(self._optimizer)
        self._scaler.update()
        self._optimizer.zero_grad()
        return losses[0]

    def close(self) -> None:
        """Takes the frozen parts from the device."""
        self._parts.close()

    def _read(self, files: Sequence[Mapping[str, str]]) -> list[dict[str, Tensor]]:
        began = time.perf_counter()
        samples = read(files, self._material)
        self._waited += time.perf_counter() - began
        return samples

    def _loss(self, views: dict[str, Tensor], pixels: Tensor) -> Tensor:
        """Encodes three pictures and the reference's embedding, and compares what the network makes of their noise."""
        count = len(pixels)
        reference, target, render = (self._parts.latents(views[view]) for view in ("cond", "gt", "render"))
        embedding = self._parts.embedding(pixels)
        vector = self._parts.class_vector(embedding, torch.randn(embedding.shape, device=self._device))
        case = (torch.rand(count, device=self._device) / DROPOUT).long().clamp(max=len(DROPPED))
        keep_render, keep_vector, keep_reference = self._kept[case].unbind(1)
        vector = vector * keep_vector[:, None]
        render = render * keep_render.view(-1, 1, 1, 1)
        clean = torch.stack([reference * keep_reference.view(-1, 1, 1, 1), target], dim=1).flatten(0, 1)
        noise = torch.randn_like(clean)
        late = torch.randint(len(self._alphas), (count,), device=self._device)
        times = torch.stack([torch.zeros_like(late), late], dim=1).flatten()
        alpha = self._alphas[times].view(-1, 1, 1, 1)
        noisy = alpha.sqrt() * clean + (1 - alpha).sqrt() * noise
        wanted = alpha.sqrt() * noise - (1 - alpha).sqrt() * clean
        predicted = self._network(
            torch.cat([noisy, render.repeat_interleave(2, dim=0)], dim=1),
            times,
            encoder_hidden_states=self._text.repeat(2 * count, 1, 1),
            class_labels=vector.repeat_interleave(2, dim=0),
        ).sample
        return mse_loss(predicted.float(), wanted.float())
