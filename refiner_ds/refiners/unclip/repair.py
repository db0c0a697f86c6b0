"""Repairing: the sampling loop from a degraded render and a reference view to a picture; the pipeline folder."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from diffusers import DiffusionPipeline
from torch import Tensor
from torch.nn.functional import pad

from refiner_ds.batch import to_bytes
from refiner_ds.chance import key_of
from refiner_ds.refiners.protocol import Sampling
from refiner_ds.refiners.unclip.encode import Encoder
from refiner_ds.refiners.unclip.network import pairs_of, rows_of
from refiner_ds.refiners.unclip.objective import ClassVector
from refiner_ds.refiners.unclip.parts import Parts

PROMPT = "best quality, high quality"
NEGATIVE_PROMPT = "low quality, bad quality"


class UnclipRefinerPipeline(DiffusionPipeline):
    """The parts of a refiner as one saved and loaded folder; `repair` does the work."""

    def __init__(
        self,
        vae: Any,
        text_encoder: Any,
        tokenizer: Any,
        unet: Any,
        scheduler: Any,
        feature_extractor: Any,
        image_encoder: Any,
        image_normalizer: Any,
        image_noising_scheduler: Any,
    ) -> None:
        super().__init__()
        self.register_modules(
            vae=vae,
            text_encoder=text_encoder,
            tokenizer=tokenizer,
            unet=unet,
            scheduler=scheduler,
            feature_extractor=feature_extractor,
            image_encoder=image_encoder,
            image_normalizer=image_normalizer,
            image_noising_scheduler=image_noising_scheduler,
        )


@torch.no_grad()
def repair(
    parts: Parts,
    encoder: Encoder,
    render: Tensor,
    cond: Tensor,
    seeds: Sequence[int],
    sampling: Sampling,
    told: Callable[[], None] | None = None,
) -> Tensor:
    """Repairs B renders, each with its reference view; every picture's noise is drawn from its own seed.

    Row 0 of a pair, the source, is the clean latent of the reference at every step: it is set, never sampled. Guidance
    (Ho and Salimans 2022) runs between a good and a bad prompt, the bad half with its class vector zeroed; render and
    reference stay in both halves. At guidance 1 the bad half is not computed.

    Args:
        render, cond: (B, 3, H, W) uint8 of any size; padded to the VAE's factor and cut back.
        seeds: B seeds.
        told: called after every call of the UNet.

    Returns:
        (B, 3, H, W) uint8.
    """
    device, dtype = parts.unet.device, parts.unet.dtype
    height, width = render.shape[-2:]
    margin = (0, -width % encoder.factor, 0, -height % encoder.factor)
    render, cond = (
        pad(picture.to(device).float(), margin, mode="replicate").to(torch.uint8) for picture in (render, cond)
    )
    source, render_latents = encoder.latents(cond), encoder.latents(render)
    embedding = encoder.embedding(cond[..., :height, :width])
    generators = [torch.Generator(device).manual_seed(key_of(seed, "repair")) for seed in seeds]
    target = torch.stack([torch.randn(source.shape[1:], generator=g, device=device) for g in generators])
    noise = torch.stack([torch.randn(embedding.shape[1:], generator=g, device=device) for g in generators])

    guidance = sampling.guidance_scale
    halves = 2 if guidance != 1.0 else 1
    vector = ClassVector(parts, device)(embedding, noise)
    vectors = torch.cat([torch.zeros_like(vector), vector][-halves:])
    text = encoder.text([NEGATIVE_PROMPT, PROMPT][-halves:]).repeat_interleave(2 * len(source), dim=0)
    fixed = render_latents.repeat(halves, 1, 1, 1)
    conditions = {
        "encoder_hidden_states": text.to(dtype),
        "class_labels": rows_of(vectors, vectors).to(dtype),
    }
    scheduler = type(parts.scheduler).from_config(parts.scheduler.config)  # the sampler's memory belongs to this call
    scheduler.set_timesteps(sampling.num_inference_steps, device=device)
    target = target * scheduler.init_noise_sigma
    for timestep in scheduler.timesteps:
        scaled = scheduler.scale_model_input(target, timestep)
        rows = rows_of(source, scaled).repeat(halves, 1, 1, 1)
        timesteps = torch.stack([torch.zeros_like(timestep), timestep]).repeat(len(rows) // 2)
        latents = torch.cat([rows, rows_of(fixed, fixed)], dim=1).to(dtype)
        _, predicted = pairs_of(parts.unet(latents, timesteps, **conditions).sample.float())
        if halves == 2:
            bad, good = predicted.chunk(2)
            predicted = bad + guidance * (good - bad)
        target = scheduler.step(predicted, timestep, target).prev_sample
        if told:
            told()
    return to_bytes(encoder.pictures(target)[..., :height, :width])
