"""What the public scripts of GaussianRefiner do with the parts of a checkpoint, re-written from their description."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from diffusers.models.attention_processor import Attention
from diffusers.models.embeddings import get_timestep_embedding
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from refiner_ds.bench.recipe import recipe
from refiner_ds.bench.step_material import Material
from refiner_ds.refiners.unclip.parts import Parts


def dtype_on(device: torch.device) -> torch.dtype:
    """Precision of the frozen parts and of matrix products there."""
    return torch.float16 if device.type == "cuda" else torch.float32


def read(files: Sequence[Mapping[str, str]], material: Material) -> list[dict[str, Tensor]]:
    """Each sample's crops, (3, H, W) in [-1, 1] by view, out of its files."""
    return [recipe(each, material.bucket, crop_width=material.crop_width) for each in files]


class BaselineParts:
    """The frozen parts on a device in one precision: a VAE encode for each view, and CLIP's pixels from the CPU."""

    def __init__(self, parts: Parts, device: torch.device, dtype: torch.dtype) -> None:
        self._parts, self._device, self._dtype = parts, device, dtype
        parts.freeze(device, dtype)

    def close(self) -> None:
        """Takes them from the device."""
        self._parts.freeze(torch.device("cpu"), self._dtype)

    def prepared(self, samples: Sequence[Mapping[str, Tensor]]) -> tuple[dict[str, Tensor], Tensor]:
        """(B, 3, H, W) in [-1, 1] by view, and (B, 3, size, size) for CLIP, both made on the CPU, on the device."""
        arrays = [((one["cond"] + 1) * 127.5).byte().movedim(0, -1).numpy() for one in samples]
        pixels = self._parts.feature_extractor(
            images=[np.ascontiguousarray(one) for one in arrays], return_tensors="pt"
        )
        views = {view: torch.stack([one[view] for one in samples]) for view in samples[0]}
        there = {view: rows.to(self._device, self._dtype) for view, rows in views.items()}
        return there, pixels.pixel_values.to(self._device, self._dtype)

    @torch.no_grad()
    def latents(self, pictures: Tensor) -> Tensor:
        """(B, 3, H, W) in [-1, 1] to scaled latents."""
        return self._parts.vae.encode(pictures).latent_dist.mode() * self._parts.vae.config.scaling_factor

    @torch.no_grad()
    def pictures(self, latents: Tensor) -> Tensor:
        """Scaled latents back to (B, 3, H, W) in about [-1, 1]."""
        return self._parts.vae.decode(latents / self._parts.vae.config.scaling_factor).sample

    @torch.no_grad()
    def embedding(self, pixels: Tensor) -> Tensor:
        """(B, d)."""
        return self._parts.image_encoder(pixels).image_embeds

    @torch.no_grad()
    def class_vector(self, embedding: Tensor, noise: Tensor) -> Tensor:
        """(B, 2 d): the embedding, noised at level 0 in the normalizer's units, and that level's own embedding."""
        normalizer = self._parts.image_normalizer
        level = torch.zeros(len(embedding), dtype=torch.long, device=self._device)
        noised = self._parts.image_noising_scheduler.add_noise(normalizer.scale(embedding), noise, level)
        told = get_timestep_embedding(level, embedding.shape[1], flip_sin_to_cos=True, downscale_freq_shift=0)
        return torch.cat([normalizer.unscale(noised), told], dim=1)

    @torch.no_grad()
    def text(self, prompts: Sequence[str]) -> Tensor:
        """(prompts, tokens, d)."""
        tokenizer = self._parts.tokenizer
        length = tokenizer.model_max_length
        tokens = tokenizer(list(prompts), padding="max_length", max_length=length, truncation=True, return_tensors="pt")
        return self._parts.text_encoder(tokens.input_ids.to(self._device))[0]


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


def use_both_halves(network: Any) -> None:
    """Gives it to every self-attention of a refiner's network."""
    processors = network.attn_processors.items()
    network.set_attn_processor({name: BothHalves() if ".attn1." in name else old for name, old in processors})


def _attend(heads: int, *rows: Tensor) -> Tensor:
    """Query, key, value (rows, tokens, channels) to (rows, tokens, channels)."""
    query, key, value = (each.view(len(each), each.shape[1], heads, -1).transpose(1, 2) for each in rows)
    return scaled_dot_product_attention(query, key, value).transpose(1, 2).flatten(2)
