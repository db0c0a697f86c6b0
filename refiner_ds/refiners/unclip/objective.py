"""The training objective: what is drawn for a sample, the noisy rows, the velocity, and the loss of each branch."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from diffusers import UNet2DConditionModel
from diffusers.models.embeddings import get_timestep_embedding
from torch import Tensor

from refiner_ds.chance import generator_of, key_of
from refiner_ds.refiners.unclip.encode import Features
from refiner_ds.refiners.unclip.network import pairs_of, rows_of
from refiner_ds.refiners.unclip.parts import Parts

DROPPED = (
    # render, embedding, reference: which conditions case i drops; beyond the last case nothing is dropped
    (True, False, False),
    (False, True, False),
    (False, False, True),
    (True, True, False),
    (True, False, True),
    (False, True, True),
    (True, True, True),
)


@dataclass(frozen=True)
class Draws:
    """All that chance decides for B samples.

    Attributes:
        noise: (B * 2, c, h, w) fp32, N(0, 1), rows source and target in turn.
        embedding_noise: (B, d) fp32, N(0, 1).
        timesteps: (B * 2,) int64; the source's is 0, the target's uniform over the schedule.
        keep: (B, 3) fp32 of 0 and 1: whether render, embedding and reference are kept.
    """

    noise: Tensor
    embedding_noise: Tensor
    timesteps: Tensor
    keep: Tensor


def kept(uniform: float, probability: float) -> tuple[float, ...]:
    """Dropout by one uniform number in [0, 1): 0 or 1 for render, embedding and reference.

    Case i of `DROPPED` takes [i p, (i + 1) p); the rest keeps everything.
    """
    for case, dropped in enumerate(DROPPED):
        if uniform < (case + 1) * probability:
            return tuple(0.0 if drop else 1.0 for drop in dropped)
    return 1.0, 1.0, 1.0


def draw(
    positions: Sequence[int],
    seed: int,
    latent: Sequence[int],
    embedding: int,
    num_timesteps: int,
    dropout: float,
    device: torch.device,
) -> Draws:
    """Draws for the samples at `positions` of the stream, each keyed by its own position: no rank, no worker enters.

    Args:
        latent: (c, h, w) of one latent.
        embedding: length d of the image embedding.
        dropout: probability of each of the seven cases of `DROPPED`.
    """
    noise, embedding_noise, timesteps, keep = [], [], [], []
    for position in positions:
        on_device = torch.Generator(device).manual_seed(key_of(seed, "noise", position))
        noise.append(torch.randn((2, *latent), generator=on_device, device=device))
        embedding_noise.append(torch.randn(embedding, generator=on_device, device=device))
        small = generator_of(seed, "draws", position)
        timesteps += [0, int(small.integers(num_timesteps))]
        keep.append(kept(small.random(), dropout))
    return Draws(
        torch.cat(noise),
        torch.stack(embedding_noise),
        torch.tensor(timesteps).to(device, non_blocking=True),
        torch.tensor(keep).to(device, non_blocking=True),
    )


class Objective:
    """The loss of one micro-batch, from features and draws; every coefficient in fp32.

    The noise coefficients are never rounded to the network's precision: in bf16 the cumulative alpha of timestep 0
    would round to 1, leaving source rows without noise whose target is pure noise.
    """

    def __init__(self, parts: Parts, null_text: Tensor, source_loss_weight: float, device: torch.device) -> None:
        self._alphas = parts.scheduler.alphas_cumprod.to(device, torch.float32)
        self._prediction_type = parts.scheduler.config.prediction_type
        self._class_vector = ClassVector(parts, device)
        self._null_text = null_text
        self._source_loss_weight = source_loss_weight
        self.num_timesteps: int = parts.scheduler.config.num_train_timesteps

    def losses(
        self, network: UNet2DConditionModel, dtype: torch.dtype, features: Features, draws: Draws
    ) -> dict[str, Tensor]:
        """One forward pass: `loss` to go back from, and its branches `loss_source` and `loss_target`, all fp32 scalars.

        At source weight 1, `loss` is the mean squared error over both rows.
        """
        keep_render, keep_embedding, keep_reference = (draws.keep[:, i] for i in range(3))
        clean = rows_of(features.cond * _over(keep_reference), features.gt)
        noisy, target = self.noised(clean, draws.noise, draws.timesteps)
        render = features.render * _over(keep_render)
        vector = self._class_vector(features.embedding, draws.embedding_noise) * keep_embedding[:, None]
        predicted = network(
            torch.cat([noisy, rows_of(render, render)], dim=1).to(dtype),
            draws.timesteps,
            encoder_hidden_states=self._null_text.expand(len(noisy), -1, -1).to(dtype),
            class_labels=rows_of(vector, vector).to(dtype),
        ).sample.float()
        source, wanted = pairs_of((predicted - target).square())
        loss_source, loss_target = source.mean(), wanted.mean()
        loss = (self._source_loss_weight * loss_source + loss_target) / 2
        return {"loss": loss, "loss_source": loss_source.detach(), "loss_target": loss_target.detach()}

    def noised(self, clean: Tensor, noise: Tensor, timesteps: Tensor) -> tuple[Tensor, Tensor]:
        """Noisy latents and what the network shall predict of them, both (rows, c, h, w) fp32.

        x_t = sqrt(a) x + sqrt(1 - a) noise (Ho et al. 2020, eq. 4); velocity v = sqrt(a) noise - sqrt(1 - a) x
        (Salimans and Ho 2022, appendix D), or the noise itself where the checkpoint predicts epsilon.
        """
        alpha = self._alphas[timesteps]
        signal, spread = _over(alpha.sqrt()), _over((1 - alpha).sqrt())
        noisy = signal * clean + spread * noise
        return noisy, signal * noise - spread * clean if self._prediction_type == "v_prediction" else noise


class ClassVector:
    """The class vector of the reference: its embedding, noised at level 0, and the sinusoidal embedding of level 0."""

    def __init__(self, parts: Parts, device: torch.device) -> None:
        self._normalizer = parts.image_normalizer
        alpha = parts.image_noising_scheduler.alphas_cumprod[0].to(device, torch.float32)
        self._signal, self._spread = alpha.sqrt(), (1 - alpha).sqrt()

    def __call__(self, embedding: Tensor, noise: Tensor) -> Tensor:
        """(B, d) fp32 embedding and its N(0, 1) noise to (B, 2 d)."""
        noised = self._normalizer.unscale(self._signal * self._normalizer.scale(embedding) + self._spread * noise)
        level = torch.zeros(len(embedding), device=embedding.device)
        return torch.cat(
            [noised, get_timestep_embedding(level, embedding.shape[1], flip_sin_to_cos=True, downscale_freq_shift=0)], 1
        )


def _over(values: Tensor) -> Tensor:
    """(N,) to (N, 1, 1, 1), to multiply latents with."""
    return values.view(-1, 1, 1, 1)
