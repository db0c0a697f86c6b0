"""Repairing: the sampling loop from a degraded render and a reference view to a picture; the pipeline folder."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from diffusers import DiffusionPipeline
from PIL import Image
from torch import Tensor
from torch.nn.functional import pad

from refiner_ds.batch import to_bytes
from refiner_ds.chance import key_of
from refiner_ds.refiners.protocol import Sampling
from refiner_ds.refiners.unclip.encode import Encoder
from refiner_ds.refiners.unclip.network import make_refiner, source_computed_once
from refiner_ds.refiners.unclip.objective import ClassVector
from refiner_ds.refiners.unclip.parts import Parts

PROMPT = "best quality, high quality"
NEGATIVE_PROMPT = "low quality, bad quality"


class UnclipRefinerPipeline(DiffusionPipeline):
    """A refiner as one folder in diffusers' layout: `UnclipRefinerPipeline.from_pretrained(folder)(render, cond)`."""

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
        if unet is not None:
            make_refiner(unet)

    def __call__(
        self,
        render: Image.Image,
        cond: Image.Image,
        num_inference_steps: int = 20,
        guidance_scale: float = 10.0,
        seed: int = 0,
    ) -> Image.Image:
        """The repaired picture of a render, with a reference of its size; where and in what precision the parts are."""
        parts = Parts(**self.components)
        both = [torch.from_numpy(np.array(picture.convert("RGB"))).permute(2, 0, 1)[None] for picture in (render, cond)]
        sampling = Sampling(num_inference_steps, guidance_scale)
        repaired = repair(parts, Encoder(parts), both[0], both[1], [seed], sampling)
        return Image.fromarray(repaired[0].permute(1, 2, 0).cpu().numpy())


@torch.no_grad()
def repair(
    parts: Parts,
    encoder: Encoder,
    render: Tensor,
    cond: Tensor,
    seeds: Sequence[int],
    sampling: Sampling,
) -> Tensor:
    """Repairs B renders, each with its reference view; every picture's noise is drawn from its own seed.

    The source of a pair is the clean latent of the reference at timestep 0, at every step: it runs once. Guidance
    (Ho and Salimans 2022) runs between a good and a bad prompt, the bad half with its class vector zeroed; render and
    reference stay in both halves. At guidance 1 the bad half is not computed.

    Args:
        render, cond: (B, 3, H, W) uint8 of any size; padded to the VAE's factor and cut back.
        seeds: B seeds.

    Returns:
        (B, 3, H, W) uint8.
    """
    device = parts.unet.device
    height, width = render.shape[-2:]
    margin = (0, -width % encoder.factor, 0, -height % encoder.factor)
    render, cond = (
        pad(picture.to(device).float(), margin, mode="replicate").to(torch.uint8) for picture in (render, cond)
    )
    source, render_latents = encoder.latents(cond), encoder.latents(render)
    embedding = encoder.embedding(cond[..., :height, :width])
    generators = [torch.Generator(device).manual_seed(key_of(seed, "repair")) for seed in seeds]
    start = torch.stack([torch.randn(source.shape[1:], generator=g, device=device) for g in generators])
    noise = torch.stack([torch.randn(embedding.shape[1:], generator=g, device=device) for g in generators])
    vector = ClassVector(parts, device)(embedding, noise)
    target = _sample(parts, encoder.text([NEGATIVE_PROMPT, PROMPT]), source, render_latents, vector, start, sampling)
    return to_bytes(encoder.pictures(target)[..., :height, :width])


def _sample(
    parts: Parts, texts: Tensor, source: Tensor, render: Tensor, vector: Tensor, start: Tensor, sampling: Sampling
) -> Tensor:
    """The sampling loop, on latents (B, c, h, w); `texts` are the states of the bad and of the good prompt."""
    dtype, guidance = parts.unet.dtype, sampling.guidance_scale
    halves = 2 if guidance != 1.0 else 1
    conditions = {
        "encoder_hidden_states": texts[-halves:].repeat_interleave(len(source), dim=0).to(dtype),
        "class_labels": torch.cat([torch.zeros_like(vector), vector][-halves:]).to(dtype),
    }

    def predict(latents: Tensor, timestep: Tensor) -> Tensor:
        """One row a pair and half: all sources, or all targets."""
        rows = torch.cat([latents, render], dim=1).repeat(halves, 1, 1, 1)
        return parts.unet(rows.to(dtype), timestep.expand(len(rows)), **conditions).sample.float()

    scheduler = type(parts.scheduler).from_config(parts.scheduler.config)  # the sampler's memory belongs to this call
    scheduler.set_timesteps(sampling.num_inference_steps, device=source.device)
    target = start * scheduler.init_noise_sigma
    at_zero = torch.zeros((), dtype=torch.long, device=source.device)
    with source_computed_once(parts.unet, lambda: predict(source, at_zero)):
        for timestep in scheduler.timesteps:
            predicted = predict(scheduler.scale_model_input(target, timestep), timestep)
            if halves == 2:
                bad, good = predicted.chunk(2)
                predicted = bad + guidance * (good - bad)
            target = scheduler.step(predicted, timestep, target).prev_sample
    return target
