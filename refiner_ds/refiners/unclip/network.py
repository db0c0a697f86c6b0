"""The UNet of the refiner: twice the input channels for the render's latents, and mutual attention in every attn1."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

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
        query, key, value = (heads.unflatten(0, (-1, ROWS)) for heads in _heads(attn, hidden_states))
        source = scaled_dot_product_attention(query[:, 0], key[:, 0], value[:, 0])
        keys, values = (
            torch.cat([rows[:, 1], rows[:, 0]], dim=2) for rows in (key, value)
        )  # the target's tokens first
        target = scaled_dot_product_attention(query[:, 1], keys, values)
        return _merged(attn, torch.stack([source, target], dim=1).flatten(0, 1))


class _SourceAlone:
    """The source's half of mutual attention: plain self-attention over source rows that keeps their keys and values."""

    def __call__(self, attn: Attention, hidden_states: Tensor, *_: object, **__: object) -> Tensor:
        """hidden_states: (pairs, tokens, channels), sources only."""
        query, self.key, self.value = _heads(attn, hidden_states)
        return _merged(attn, scaled_dot_product_attention(query, self.key, self.value))


class _TargetAlone:
    """The target's half of mutual attention: target rows attend to themselves and to what their sources have left."""

    def __init__(self, source: _SourceAlone) -> None:
        self._source = source

    def __call__(self, attn: Attention, hidden_states: Tensor, *_: object, **__: object) -> Tensor:
        """hidden_states: (pairs, tokens, channels), targets only, of the pairs whose sources have run."""
        query, key, value = _heads(attn, hidden_states)
        keys, values = torch.cat([key, self._source.key], dim=2), torch.cat([value, self._source.value], dim=2)
        return _merged(attn, scaled_dot_product_attention(query, keys, values))


def _heads(attn: Attention, rows: Tensor) -> tuple[Tensor, ...]:
    """Query, key and value of (rows, tokens, channels), each (rows, heads, tokens, channels per head)."""
    projections = (attn.to_q, attn.to_k, attn.to_v)
    return tuple(project(rows).unflatten(-1, (attn.heads, -1)).transpose(1, 2) for project in projections)


def _merged(attn: Attention, heads: Tensor) -> Tensor:
    """(rows, heads, tokens, channels per head) through the output projection to (rows, tokens, channels)."""
    return attn.to_out[1](attn.to_out[0](heads.transpose(1, 2).flatten(-2)))


@contextmanager
def source_computed_once(unet: UNet2DConditionModel, run_source: Callable[[], object]) -> Iterator[None]:
    """Takes pairs apart in time, which is exact, since the source never sees the target.

    `run_source` calls the UNet on the source rows alone; within the context it is then called on target rows alone, any
    number of times, in the order of the sources. Where the source is the same at every step of a sampling loop, this
    saves half of the work of all steps but the first.
    """
    mutual = unet.attn_processors
    sources = {name: _SourceAlone() if isinstance(old, MutualAttention) else old for name, old in mutual.items()}
    targets = {name: _TargetAlone(new) if isinstance(new, _SourceAlone) else new for name, new in sources.items()}
    try:
        unet.set_attn_processor(sources)
        run_source()
        unet.set_attn_processor(targets)
        yield
    finally:
        unet.set_attn_processor(mutual)


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
