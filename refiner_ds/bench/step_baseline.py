"""The cost of the public training script's step, played again in our own words from its description.

Where it does what, how often and in which precision is as there; noise comes from torch's ordinary generator. It
reduces gradients in every micro-step, which costs one rank nothing, so a cluster would see a larger difference.
"""

from collections.abc import Sequence

import numpy as np
import torch
from diffusers.models.attention_processor import Attention
from diffusers.models.embeddings import get_timestep_embedding
from torch import Tensor, nn
from torch.nn.functional import mse_loss, scaled_dot_product_attention

from refiner_ds.bench.recipe import recipe
from refiner_ds.bench.step_material import Material
from refiner_ds.refiners.unclip.objective import DROPPED
from refiner_ds.refiners.unclip.parts import Parts

DROPOUT = 0.05
"""Probability of each case of dropped conditions."""
MAX_NORM = 1.0


class BothHalves:
    """Self-attention of pairs of rows as a stock layer does it, the target's keys and values joined to its source's."""

    def __call__(self, attn: Attention, hidden_states: Tensor, *_: object, **__: object) -> Tensor:
        """(rows, tokens, channels), rows source and target in turn; returns the same shape."""
        query, key, value = attn.to_q(hidden_states), attn.to_k(hidden_states), attn.to_v(hidden_states)
        joined_key = torch.cat([key[1::2], key[0::2]], dim=1)
        joined_value = torch.cat([value[1::2], value[0::2]], dim=1)
        source = _attend(attn.heads, query[0::2], key[0::2], value[0::2])
        target = _attend(attn.heads, query[1::2], joined_key, joined_value)
        rows = torch.stack([source, target], dim=1).reshape(hidden_states.shape)
        return attn.to_out[1](attn.to_out[0](rows))


def _attend(heads: int, *rows: Tensor) -> Tensor:
    """Query, key, value (rows, tokens, channels) to (rows, tokens, channels)."""
    query, key, value = (each.view(len(each), each.shape[1], heads, -1).transpose(1, 2) for each in rows)
    return scaled_dot_product_attention(query, key, value).transpose(1, 2).flatten(2)


class BaselineWay:
    """Reads PNG in the process that trains, encodes in every micro-step, waits for the device twice in each.

    On a GPU the frozen parts are of fp16 and the network of fp32 under autocast to fp16; on a CPU all is of fp32.
    """

    def __init__(
        self, parts: Parts, network: nn.Module, material: Material, device: torch.device, learning_rate: float
    ) -> None:
        """network: the refiner's, on the CPU; its self-attention is replaced."""
        self._parts, self._material, self._device = parts, material, device
        self._dtype = dtype_on(device)
        parts.freeze(device, self._dtype)
        self._network = network.to(device, torch.float32).train()
        processors = network.attn_processors.items()  # type: ignore[union-attr, operator]
        network.set_attn_processor(  # type: ignore[operator]
            {name: BothHalves() if ".attn1." in name else processor for name, processor in processors}
        )
        self._optimizer = torch.optim.AdamW(self._network.parameters(), lr=learning_rate, weight_decay=0.01)
        self._scaler = torch.amp.GradScaler(device.type, enabled=device.type == "cuda")
        self._alphas = parts.scheduler.alphas_cumprod.to(device)
        self._text = self._empty_prompt()
        self._kept = 1.0 - torch.tensor([*DROPPED, (False,) * 3], dtype=torch.float32, device=device)
        self.shown, self.logged = 0.0, 0.0

    def step(self) -> Tensor:
        """One update from all micro-batches; the loss of the first."""
        losses, count, total = [], len(self._material.files), 0.0
        for files in self._material.files:
            with torch.autocast(self._device.type, torch.float16, enabled=self._dtype == torch.float16):
                loss = self._loss(*self._read(files))
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
        self._parts.freeze(torch.device("cpu"), self._dtype)

    def _read(self, files: Sequence[dict[str, str]]) -> tuple[dict[str, Tensor], Tensor]:
        """(B, 3, H, W) in [-1, 1] by view, and (B, 3, size, size) for CLIP, both made on the CPU, on the device."""
        samples = [recipe(each, self._material.bucket, crop_width=self._material.crop_width) for each in files]
        arrays = [((one["cond"] + 1) * 127.5).byte().movedim(0, -1).numpy() for one in samples]
        pixels = self._parts.feature_extractor(
            images=[np.ascontiguousarray(one) for one in arrays], return_tensors="pt"
        )
        views = {view: torch.stack([one[view] for one in samples]) for view in samples[0]}
        there = {view: rows.to(self._device, self._dtype) for view, rows in views.items()}
        return there, pixels.pixel_values.to(self._device, self._dtype)

    def _loss(self, views: dict[str, Tensor], pixels: Tensor) -> Tensor:
        """Encodes three pictures and the reference's embedding, and compares what the network makes of their noise."""
        count = len(pixels)
        reference, target, render = (self._latents(views[view]) for view in ("cond", "gt", "render"))
        vector = self._class_vector(pixels)
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

    @torch.no_grad()
    def _latents(self, pictures: Tensor) -> Tensor:
        """(B, 3, H, W) in [-1, 1] to scaled latents."""
        return self._parts.vae.encode(pictures).latent_dist.mode() * self._parts.vae.config.scaling_factor

    @torch.no_grad()
    def _class_vector(self, pixels: Tensor) -> Tensor:
        """(B, 2 d): the embedding, noised at level 0 in the normalizer's units, and that level's own embedding."""
        embedding, normalizer = self._parts.image_encoder(pixels).image_embeds, self._parts.image_normalizer
        level = torch.zeros(len(pixels), dtype=torch.long, device=self._device)
        scaled = normalizer.scale(embedding)
        noised = self._parts.image_noising_scheduler.add_noise(scaled, torch.randn_like(scaled), level)
        told = get_timestep_embedding(level, embedding.shape[1], flip_sin_to_cos=True, downscale_freq_shift=0)
        return torch.cat([normalizer.unscale(noised), told], dim=1)

    @torch.no_grad()
    def _empty_prompt(self) -> Tensor:
        """(1, tokens, d)."""
        tokenizer = self._parts.tokenizer
        tokens = tokenizer("", padding="max_length", max_length=tokenizer.model_max_length, return_tensors="pt")
        return self._parts.text_encoder(tokens.input_ids.to(self._device))[0]


def dtype_on(device: torch.device) -> torch.dtype:
    """Precision of its matrix products."""
    return torch.float16 if device.type == "cuda" else torch.float32
