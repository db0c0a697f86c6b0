"""The training objective: what is drawn for a sample, the noisy rows, the target, and the loss of each branch."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from diffusers import UNet2DConditionModel
from torch import Tensor

from refiner_ds.chance import generator_of, key_of
from refiner_ds.refiners.unclip.encode import Features
from refiner_ds.refiners.unclip.options import Recipe
from refiner_ds.refiners.unclip.parts import Parts
from refiner_ds.refiners.unclip.portable.frozen_encoders import ClassVector
from refiner_ds.refiners.unclip.portable.mutual_attention import pairs_of, rows_of

CONDITIONS = ("render", "embedding", "reference")
DROPPED = (
    # of these: which conditions case i drops; beyond the last case nothing is dropped
    (True, False, False),
    (False, True, False),
    (False, False, True),
    (True, True, False),
    (True, False, True),
    (False, True, True),
    (True, True, True),
)
QUARTERS = 4
"""Of the timesteps, by which the loss is told too."""


@dataclass(frozen=True)
class Draws:
    """All that chance decides for B samples.

    Attributes:
        noise: (B * 2, c, h, w) fp32, rows source and target in turn: N(0, 1), and what a noise offset adds to it.
        embedding_noise: (B, d) fp32, N(0, 1).
        timesteps: (B * 2,) int64; the source's is 0, the target's uniform over the schedule.
        keep: (B, 3) fp32 of 0 and 1: whether render, embedding and reference are kept.
        perturbation: as `noise`, N(0, 1) and scaled: added to the input's noise alone; none without one.
    """

    noise: Tensor
    embedding_noise: Tensor
    timesteps: Tensor
    keep: Tensor
    perturbation: Tensor | None = None


def kept(uniform: float, probability: float) -> tuple[float, ...]:
    """Dropout by one uniform number in [0, 1): 0 or 1 for each of `CONDITIONS`.

    Case i of `DROPPED` takes [i p, (i + 1) p); the rest keeps everything.
    """
    for case, dropped in enumerate(DROPPED):
        if uniform < (case + 1) * probability:
            return tuple(0.0 if drop else 1.0 for drop in dropped)
    return 1.0, 1.0, 1.0


def draw_few(position: int, seed: int, num_timesteps: int, recipe: Recipe) -> tuple[int, tuple[float, ...]]:
    """What is drawn for a sample beside noise: the timestep of its target row, and 0 or 1 for each of `CONDITIONS`."""
    chance = generator_of(seed, "draws", position)
    timestep = int(chance.integers(num_timesteps))
    return timestep, kept(chance.random(), recipe.condition_dropout)


def draw(
    positions: Sequence[int],
    seed: int,
    latent: Sequence[int],
    embedding: int,
    num_timesteps: int,
    recipe: Recipe,
    device: torch.device,
) -> Draws:
    """Draws for the samples at `positions` of the stream, each keyed by its own position: no rank, no worker enters.

    What an option of the recipe draws comes from a stream of its own, so that switching it leaves the rest as it was.

    Args:
        latent: (c, h, w) of one latent.
        embedding: length d of the image embedding.
    """
    noise, embedding_noise, timesteps, keep, perturbation = [], [], [], [], []

    def normal(purpose: str, position: int, *shapes: Sequence[int]) -> list[Tensor]:
        generator = torch.Generator(device).manual_seed(key_of(seed, purpose, position))
        return [torch.randn(tuple(shape), generator=generator, device=device) for shape in shapes]

    for position in positions:
        rows, vector = normal("noise", position, (2, *latent), (embedding,))
        if recipe.noise_offset:
            rows = rows + recipe.noise_offset * normal("noise_offset", position, (2, latent[0], 1, 1))[0]
        if recipe.input_perturbation:
            perturbation += normal("input_perturbation", position, (2, *latent))
        noise.append(rows)
        embedding_noise.append(vector)
        timestep, conditions = draw_few(position, seed, num_timesteps, recipe)
        timesteps += [0, timestep]
        keep.append(conditions)
    return Draws(
        torch.cat(noise),
        torch.stack(embedding_noise),
        torch.tensor(timesteps).to(device, non_blocking=True),
        torch.tensor(keep).to(device, non_blocking=True),
        recipe.input_perturbation * torch.cat(perturbation) if perturbation else None,
    )


class Objective:
    """The loss of one micro-batch, from features and draws; every coefficient in fp32.

    The noise coefficients are never rounded to the network's precision: in bf16 the cumulative alpha of timestep 0
    would round to 1, leaving source rows without noise whose target is pure noise.
    """

    def __init__(self, parts: Parts, text: Tensor, recipe: Recipe, device: torch.device) -> None:
        """text: (1, tokens, d), the states that every row is told."""
        self._alphas = parts.scheduler.alphas_cumprod.to(device, torch.float32)
        self._predicts_velocity = parts.scheduler.config.prediction_type == "v_prediction"
        self._class_vector = ClassVector(parts, device)
        self._text = text
        self._recipe = recipe
        self.num_timesteps: int = parts.scheduler.config.num_train_timesteps

    def losses(
        self, network: UNet2DConditionModel, dtype: torch.dtype, features: Features, draws: Draws
    ) -> dict[str, Tensor]:
        """One forward pass: `loss` to go back from, and its branches `loss_source` and `loss_target`, all fp32 scalars.

        `loss_t` is (QUARTERS, 2) fp32: sum and number of the target rows' errors by quarter of the timesteps, from the
        one with least noise on.

        At source weight 1, `loss` is the mean over both rows of the squared error; with `snr_gamma` the error of every
        row is weighted, in the branches too.
        """
        keep_render, keep_embedding, keep_reference = (draws.keep[:, i] for i in range(3))
        clean = rows_of(features.cond * _over(keep_reference), features.gt)
        noisy, target = self.noised(clean, draws.noise, draws.timesteps, draws.perturbation)
        render = features.render * _over(keep_render)
        vector = self._class_vector(features.embedding, draws.embedding_noise) * keep_embedding[:, None]
        predicted = network(
            torch.cat([noisy, rows_of(render, render)], dim=1).to(dtype),
            draws.timesteps,
            encoder_hidden_states=self._text.expand(len(noisy), -1, -1).to(dtype),
            class_labels=rows_of(vector, vector).to(dtype),
        ).sample.float()
        errors = (predicted - target).square().mean(dim=(1, 2, 3)) * self.row_weights(draws.timesteps)
        source_errors, target_errors = pairs_of(errors)
        loss_source, loss_target = source_errors.mean(), target_errors.mean()
        loss = (self._recipe.source_loss_weight * loss_source + loss_target) / 2
        by_quarter = self._by_quarter(target_errors.detach(), pairs_of(draws.timesteps)[1])
        branches = {"loss_source": loss_source.detach(), "loss_target": loss_target.detach()}
        return {"loss": loss, **branches, "loss_t": by_quarter}

    def _by_quarter(self, errors: Tensor, timesteps: Tensor) -> Tensor:
        """(QUARTERS, 2): sum and number of (rows,) errors by quarter of their timesteps."""
        quarter_of_row = timesteps * QUARTERS // self.num_timesteps
        belongs = quarter_of_row == torch.arange(QUARTERS, device=errors.device)[:, None]
        return torch.stack([(belongs * errors).sum(dim=1), belongs.sum(dim=1).float()], dim=1)

    def noised(
        self, clean: Tensor, noise: Tensor, timesteps: Tensor, perturbation: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Noisy latents and what the network shall predict of them, both (rows, c, h, w) fp32.

        x_t = sqrt(a) x + sqrt(1 - a) noise (Ho et al. 2020, eq. 4); velocity v = sqrt(a) noise - sqrt(1 - a) x
        (Salimans and Ho 2022, appendix D), or the noise itself where the checkpoint predicts epsilon.
        """
        alpha = self._alphas[timesteps]
        signal, spread = _over(alpha.sqrt()), _over((1 - alpha).sqrt())
        noisy = signal * clean + spread * (noise if perturbation is None else noise + perturbation)
        return noisy, signal * noise - spread * clean if self._predicts_velocity else noise

    def row_weights(self, timesteps: Tensor) -> Tensor:
        """Weight (rows,) of each row's squared error, by its own timestep; one without `snr_gamma`.

        Min-SNR-gamma (Hang et al. 2023, section 3.4): min(SNR, gamma) / SNR for epsilon, and / (SNR + 1) for velocity,
        whose error is SNR + 1 times that of the noise. With SNR = a / (1 - a), SNR + 1 is 1 / (1 - a).
        """
        alpha = self._alphas[timesteps]
        if self._recipe.snr_gamma is None:
            return torch.ones_like(alpha)
        snr = alpha / (1 - alpha)
        return snr.clamp(max=self._recipe.snr_gamma) / (snr + 1 if self._predicts_velocity else snr)


def _over(values: Tensor) -> Tensor:
    """(N,) to (N, 1, 1, 1), to multiply latents with."""
    return values.view(-1, 1, 1, 1)
