"""Trains the tiny base's VAE on pictures, so that its latents mean something, and measures how well it reconstructs."""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from diffusers import AutoencoderKL
from torch import Tensor

from refiner_ds.batch import to_unit
from refiner_ds.chance import generator_of

CROP = 48
BATCH = 8
PEAK_RATE = 5e-3
KL_WEIGHT = 1e-6


def train_vae(
    vae: AutoencoderKL,
    pictures: Sequence[Tensor],
    steps: int,
    seed: int,
    told: Callable[[int, int], None] | None = None,
) -> float:
    """Trains on random crops of the pictures and sets `scaling_factor` so that latents have unit variance.

    The loss is the squared error plus a touch of KL (Rombach et al. 2022, appendix G, without perceptual and
    adversarial terms, which would need other networks).

    Args:
        pictures: each (3, H, W) uint8, sides of at least 48; every eighth is held out.
        told: told (step, steps) after every step.

    Returns:
        PSNR of the held-out pictures' reconstructions in dB.
    """
    held_out, seen = pictures[::8], [p for i, p in enumerate(pictures) if i % 8]
    optimizer = torch.optim.AdamW(vae.parameters(), lr=PEAK_RATE, betas=(0.9, 0.99), weight_decay=0.0)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, PEAK_RATE, total_steps=steps, pct_start=0.05)
    chance = generator_of(seed, "vae")
    torch.manual_seed(seed)
    vae.train().to(memory_format=torch.channels_last)  # about a third faster on a CPU
    for step in range(steps):
        batch = to_unit(torch.stack([_crop(seen[chance.integers(len(seen))], chance) for _ in range(BATCH)]))
        posterior = vae.encode(batch).latent_dist
        error = (vae.decode(posterior.sample()).sample - batch).square().mean()
        optimizer.zero_grad()
        (error + KL_WEIGHT * posterior.kl().mean() / batch[0].numel()).backward()
        torch.nn.utils.clip_grad_norm_(vae.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        if told:
            told(step + 1, steps)
    vae.eval().to(memory_format=torch.contiguous_format)
    with torch.no_grad():
        latents = [vae.encode(_unit(picture, vae)).latent_dist.mode().flatten() for picture in seen[:16]]
    vae.register_to_config(scaling_factor=1.0 / float(torch.cat(latents).std()))
    return reconstruction_psnr(vae, held_out)


@torch.no_grad()
def reconstruction_psnr(vae: AutoencoderKL, pictures: Sequence[Tensor]) -> float:
    """Mean PSNR in dB of (3, H, W) uint8 pictures, cut to the VAE's factor, against their reconstructions."""
    figures = []
    for picture in pictures:
        unit = _unit(picture, vae)
        error = (vae.decode(vae.encode(unit).latent_dist.mode()).sample.clamp(-1, 1) - unit).square().mean()
        figures.append(10 * np.log10(4.0 / float(error)))  # the range [-1, 1] has a peak of 2
    return float(np.mean(figures))


def _unit(picture: Tensor, vae: AutoencoderKL) -> Tensor:
    factor = 2 ** (len(vae.config.block_out_channels) - 1)
    height, width = (side - side % factor for side in picture.shape[1:])
    return to_unit(picture[None, :, :height, :width])


def _crop(picture: Tensor, chance: np.random.Generator) -> Tensor:
    top, left = (int(chance.integers(side - CROP + 1)) for side in picture.shape[1:])
    return picture[:, top : top + CROP, left : left + CROP]
