"""The frozen encoders: pictures to latents (VAE), references to their class vector (CLIP), prompts to text states."""

from collections.abc import Sequence
from typing import Any

import torch
from diffusers.models.embeddings import get_timestep_embedding
from torch import Tensor
from torch.nn.functional import interpolate


class Encoders:
    """The frozen parts of a pipeline behind a few calls; gradients never flow here.

    Pictures come as uint8 in 0..255 and go as fp32 in about [-1, 1]; latents and embeddings are fp32.
    """

    def __init__(self, pipeline: Any) -> None:
        """`pipeline` has the parts of a StableUnCLIPImg2ImgPipeline as attributes, which are read at every call."""
        self._parts = pipeline
        self._mean_and_std: Tensor | None = None

    @property
    def factor(self) -> int:
        """Pixels along one side of a latent."""
        return 2 ** (len(self._parts.vae.config.block_out_channels) - 1)

    @torch.no_grad()
    def latents(self, pictures: Tensor) -> Tensor:
        """(B, 3, H, W) uint8, sides multiples of `factor`, to scaled latents (B, c, H / factor, W / factor)."""
        unit = pictures.float() / 127.5 - 1.0
        encoded = self._parts.vae.encode(unit.to(self._parts.vae.dtype)).latent_dist.mode()
        return encoded.float() * self._parts.vae.config.scaling_factor

    @torch.no_grad()
    def pictures(self, latents: Tensor) -> Tensor:
        """Scaled latents (B, c, h, w) back to pictures (B, 3, h * factor, w * factor) in about [-1, 1]."""
        scaled = latents / self._parts.vae.config.scaling_factor
        return self._parts.vae.decode(scaled.to(self._parts.vae.dtype)).sample.float()

    @torch.no_grad()
    def embedding(self, pictures: Tensor) -> Tensor:
        """(B, 3, H, W) uint8 to CLIP image embeddings (B, d).

        As CLIPImageProcessor does it, but on the device: short side to the encoder's size (bicubic, rounded to whole
        grey levels), square from the middle, then the checkpoint's mean and standard deviation.
        """
        size = self._parts.feature_extractor.size["shortest_edge"]
        height, width = pictures.shape[-2:]
        shape = [max(size, round(side * size / min(height, width))) for side in (height, width)]
        resized = interpolate(pictures.float(), shape, mode="bicubic", antialias=True).round().clamp(0, 255)
        top, left = (shape[0] - size) // 2, (shape[1] - size) // 2
        square = resized[..., top : top + size, left : left + size] / 255.0
        if self._mean_and_std is None or self._mean_and_std.device != square.device:  # copying them once waits once
            pair = [self._parts.feature_extractor.image_mean, self._parts.feature_extractor.image_std]
            self._mean_and_std = torch.tensor(pair, device=square.device).view(2, 3, 1, 1)
        mean, std = self._mean_and_std
        pixels = ((square - mean) / std).to(self._parts.image_encoder.dtype)
        return self._parts.image_encoder(pixels).image_embeds.float()

    @torch.no_grad()
    def text(self, prompts: Sequence[str], device: torch.device) -> Tensor:
        """Text states (len(prompts), tokens, d) of prompts padded to the tokenizer's full length."""
        tokens = self._parts.tokenizer(
            list(prompts),
            padding="max_length",
            max_length=self._parts.tokenizer.model_max_length,
            truncation=True,
            return_tensors="pt",
        )
        return self._parts.text_encoder(tokens.input_ids.to(device))[0].float()


class ClassVector:
    """The class vector of the reference: its embedding, noised at level 0, and the sinusoidal embedding of level 0."""

    def __init__(self, pipeline: Any, device: torch.device) -> None:
        self._mean, self._std = (
            values.to(device, torch.float32)
            for values in (pipeline.image_normalizer.mean, pipeline.image_normalizer.std)
        )
        alpha = pipeline.image_noising_scheduler.alphas_cumprod[0].to(device, torch.float32)
        self._signal, self._spread = alpha.sqrt(), (1 - alpha).sqrt()

    @torch.no_grad()
    def __call__(self, embedding: Tensor, noise: Tensor) -> Tensor:
        """(B, d) fp32 embedding and its N(0, 1) noise to (B, 2 d)."""
        noised = self._signal * ((embedding - self._mean) / self._std) + self._spread * noise
        level = torch.zeros(len(embedding), device=embedding.device)
        sinusoidal = get_timestep_embedding(level, embedding.shape[1], flip_sin_to_cos=True, downscale_freq_shift=0)
        return torch.cat([noised * self._std + self._mean, sinusoidal], dim=1)
