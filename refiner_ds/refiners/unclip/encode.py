"""The frozen encoders: pictures to latents (VAE), the reference to its embedding (CLIP), prompts to text states."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from refiner_ds.batch import Batch, to_unit
from refiner_ds.refiners.unclip.parts import Parts


@dataclass(frozen=True)
class Features:
    """What the objective needs of a batch: latents (B, c, h, w) of three views, the reference's embedding (B, d).

    `positions` are the samples' places in the stream, which key their randomness.
    """

    render: Tensor
    gt: Tensor
    cond: Tensor
    embedding: Tensor
    positions: tuple[int, ...]


class Encoder:
    """The frozen parts behind three calls; gradients never flow here."""

    def __init__(self, parts: Parts) -> None:
        self._vae = parts.vae
        self._image_encoder = parts.image_encoder
        self._image_size = parts.feature_extractor.size["shortest_edge"]
        self._image_mean = torch.tensor(parts.feature_extractor.image_mean).view(3, 1, 1)
        self._image_std = torch.tensor(parts.feature_extractor.image_std).view(3, 1, 1)
        self._tokenizer = parts.tokenizer
        self._text_encoder = parts.text_encoder
        self.factor = 2 ** (len(parts.vae.config.block_out_channels) - 1)
        """Pixels along one side of a latent."""

    @torch.no_grad()
    def features(self, batch: Batch) -> Features:
        """Latents of all views and the embedding of the reference, in fp32."""
        latents = self.latents(torch.cat([batch.cond, batch.render, batch.gt]))
        cond, render, gt = latents.chunk(3)
        return Features(render, gt, cond, self.embedding(batch.cond), batch.positions)

    @torch.no_grad()
    def latents(self, pictures: Tensor) -> Tensor:
        """(B, 3, H, W) uint8, sides multiples of `factor`, to scaled latents (B, c, H / factor, W / factor) fp32."""
        encoded = self._vae.encode(to_unit(pictures).to(self._vae.dtype)).latent_dist.mode()
        return encoded.float() * self._vae.config.scaling_factor

    @torch.no_grad()
    def pictures(self, latents: Tensor) -> Tensor:
        """Scaled latents (B, c, h, w) back to pictures (B, 3, h * factor, w * factor), fp32 in about [-1, 1]."""
        scaled = latents / self._vae.config.scaling_factor
        return self._vae.decode(scaled.to(self._vae.dtype)).sample.float()

    @torch.no_grad()
    def embedding(self, pictures: Tensor) -> Tensor:
        """(B, 3, H, W) uint8 to CLIP image embeddings (B, d) fp32.

        As CLIPImageProcessor does it, but on the device: short side to the encoder's size (bicubic, rounded to whole
        grey levels), square from the middle, then the checkpoint's mean and standard deviation.
        """
        size = self._image_size
        height, width = pictures.shape[-2:]
        shape = [max(size, round(side * size / min(height, width))) for side in (height, width)]
        resized = interpolate(pictures.float(), shape, mode="bicubic", antialias=True).round().clamp(0, 255)
        top, left = (shape[0] - size) // 2, (shape[1] - size) // 2
        square = resized[..., top : top + size, left : left + size] / 255.0
        # after the first batch they are where they are needed, and copying them waits for nothing
        self._image_mean, self._image_std = self._image_mean.to(square.device), self._image_std.to(square.device)
        pixels = ((square - self._image_mean) / self._image_std).to(self._image_encoder.dtype)
        return self._image_encoder(pixels).image_embeds.float()

    @torch.no_grad()
    def text(self, prompts: Sequence[str]) -> Tensor:
        """Text states (len(prompts), tokens, d) of prompts padded to the tokenizer's full length, fp32."""
        tokens = self._tokenizer(
            list(prompts),
            padding="max_length",
            max_length=self._tokenizer.model_max_length,
            truncation=True,
            return_tensors="pt",
        )
        return self._text_encoder(tokens.input_ids.to(self._text_encoder.device))[0].float()
