"""The UNet of the refiner: twice the input channels for the render's latents, and mutual attention in every attn1."""

import torch
from diffusers import UNet2DConditionModel
from diffusers.models.attention_processor import Attention
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention

from refiner_ds.errors import UserError

ROWS = 2
"""Rows of a pair in the UNet's batch: row 0 is the source (the reference view), row 1 the target."""


class MutualAttention:
    """Self-attention over pairs of rows: the target attends to itself and to its source, the source to itself alone.

    Both rows share the weights of the stock self-attention; without mask and without detaching, so that the target's
    loss reaches the weights through the source row as well (MasaCtrl, Cao et al. 2023, section 4, in the form that
    GaussianRefiner trains).
    """

    def __call__(
        self,
        attn: Attention,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        attention_mask: Tensor | None = None,
        temb: Tensor | None = None,
    ) -> Tensor:
        """hidden_states: (pairs * 2, tokens, channels), rows source and target in turn; returns the same shape."""
        query, key, value = (
            project(hidden_states).unflatten(0, (-1, ROWS)).unflatten(-1, (attn.heads, -1)).transpose(2, 3)
            for project in (attn.to_q, attn.to_k, attn.to_v)
        )  # each (pairs, 2, heads, tokens, channels per head)
        source = scaled_dot_product_attention(query[:, 0], key[:, 0], value[:, 0])
        target = scaled_dot_product_attention(query[:, 1], _target_first(key), _target_first(value))
        attended = torch.stack([source, target], dim=1).transpose(2, 3).flatten(-2).flatten(0, 1)
        return attn.to_out[1](attn.to_out[0](attended))


def _target_first(rows: Tensor) -> Tensor:
    """(pairs, 2, heads, tokens, c) to (pairs, heads, 2 * tokens, c): the target's tokens, then the source's."""
    return torch.cat([rows[:, 1], rows[:, 0]], dim=2)


def make_refiner(unet: UNet2DConditionModel) -> UNet2DConditionModel:
    """Turns a pretrained UNet into a refiner's in place: widened conv_in (unless it is already), mutual attention.

    Raises:
        UserError: conv_in has neither the pretrained number of channels nor twice as many.
    """
    latent_channels = unet.config.out_channels
    if unet.config.in_channels == latent_channels:
        _widen(unet)
    elif unet.config.in_channels != 2 * latent_channels:
        raise UserError(
            f"the UNet's config says in_channels {unet.config.in_channels}, so it is neither a base "
            f"({latent_channels}) nor a refiner ({2 * latent_channels}); take another checkpoint."
        )
    stock = unet.attn_processors
    unet.set_attn_processor(
        {name: MutualAttention() if name.endswith("attn1.processor") else old for name, old in stock.items()}
    )
    return unet


def _widen(unet: UNet2DConditionModel) -> None:
    """Doubles conv_in's input channels; the new half starts at zero, so that the UNet computes what it did before."""
    old = unet.conv_in
    new = nn.Conv2d(
        2 * old.in_channels,
        old.out_channels,
        old.kernel_size,
        old.stride,
        old.padding,
        device=old.weight.device,
    ).to(old.weight.dtype)
    with torch.no_grad():
        new.weight.zero_()
        new.weight[:, : old.in_channels].copy_(old.weight)
        new.bias.copy_(old.bias)  # type: ignore[union-attr]
    unet.conv_in = new
    unet.register_to_config(in_channels=new.in_channels)


def rows_of(source: Tensor, target: Tensor) -> Tensor:
    """Interleaves (B, ...) sources and targets to (B * 2, ...) rows: source, target, source, target, ..."""
    return torch.stack([source, target], dim=1).flatten(0, 1)


def pairs_of(rows: Tensor) -> tuple[Tensor, Tensor]:
    """Takes (B * 2, ...) rows apart into (B, ...) sources and (B, ...) targets."""
    pairs = rows.unflatten(0, (-1, ROWS))
    return pairs[:, 0], pairs[:, 1]
