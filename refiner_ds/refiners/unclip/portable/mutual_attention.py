"""The UNet of the refiner: twice the input channels for the render's latents, and mutual attention in every attn1."""

from collections.abc import Callable

import torch
from diffusers import UNet2DConditionModel
from diffusers.models.attention_processor import Attention
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention

ROWS = 2
"""Rows of a pair in the UNet's batch: row 0 is the source (the reference view), row 1 the target."""

Memory = dict[str, tuple[Tensor, Tensor]]
"""Keys and values that source rows have left, by layer; each (pairs, references * tokens, channels)."""


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
        query, key, value = (rows.unflatten(0, (-1, ROWS)) for rows in _projected(attn, hidden_states))
        source = _attended(attn, query[:, 0], key[:, 0], value[:, 0])
        # the rows of a pair lie one after the other, so all its keys are a view: the source's and then the target's
        target = _attended(attn, query[:, 1], key.flatten(1, 2), value.flatten(1, 2))
        return _merged(attn, rows_of(source, target))


class PairsApart:
    """Mutual attention with the rows of pairs apart in time, which is exact, since the source never sees the target.

    Within the context the UNet is called on rows of one kind. `remember` runs the sources and keeps their keys and
    values; after `attend_to` of what was kept, target rows may come any number of times. Where the source is the same
    at every step of a sampling loop, this saves half of the work of all steps but the first.
    """

    def __init__(self, unet: UNet2DConditionModel, num_references: int = 1) -> None:
        """Each target may have several source rows, then `num_references` one after another for each pair."""
        self.num_references = num_references
        self.kept: Memory = {}
        self.is_source = True
        self._unet = unet

    def __enter__(self) -> "PairsApart":
        _set_self_attention(self._unet, lambda name: _RowsAlone(name, self))
        return self

    def __exit__(self, *_: object) -> None:
        _set_self_attention(self._unet, lambda name: MutualAttention())

    def remember(self, run_source: Callable[[], object]) -> Memory:
        """What is left by `run_source`, which calls the UNet on (pairs * num_references, ...) source rows."""
        self.kept, self.is_source = {}, True
        run_source()
        return self.kept

    def attend_to(self, kept: Memory) -> None:
        """From here on the UNet is called on (pairs, ...) target rows, the pairs in the order of the sources."""
        self.kept, self.is_source = kept, False


class _RowsAlone:
    """One layer's self-attention over rows of one kind: sources leave their keys and values, targets attend to them."""

    def __init__(self, name: str, apart: PairsApart) -> None:
        self._name, self._apart = name, apart

    def __call__(self, attn: Attention, hidden_states: Tensor, *_: object, **__: object) -> Tensor:
        """hidden_states: (rows, tokens, channels); returns the same shape."""
        apart = self._apart
        query, key, value = _projected(attn, hidden_states)
        if apart.is_source:
            apart.kept[self._name] = _joined(key, apart.num_references), _joined(value, apart.num_references)
        else:
            kept_key, kept_value = apart.kept[self._name]
            key, value = torch.cat([kept_key, key], dim=1), torch.cat([kept_value, value], dim=1)
        return _merged(attn, _attended(attn, query, key, value))


def _joined(rows: Tensor, num_references: int) -> Tensor:
    """(pairs * references, tokens, channels) to (pairs, references * tokens, channels)."""
    return rows.unflatten(0, (-1, num_references)).flatten(1, 2)


def _projected(attn: Attention, rows: Tensor) -> tuple[Tensor, ...]:
    """Query, key and value of rows, each (rows, tokens, channels)."""
    return attn.to_q(rows), attn.to_k(rows), attn.to_v(rows)


def _attended(attn: Attention, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """(rows, tokens, channels) queries over (rows, other tokens, channels) keys and values; as the queries."""
    heads = (rows.unflatten(-1, (attn.heads, -1)).transpose(1, 2) for rows in (query, key, value))
    return scaled_dot_product_attention(*heads).transpose(1, 2).flatten(-2)


def _merged(attn: Attention, rows: Tensor) -> Tensor:
    """(rows, tokens, channels) through the output projection."""
    return attn.to_out[1](attn.to_out[0](rows))


def make_refiner(unet: UNet2DConditionModel) -> UNet2DConditionModel:
    """Turns a pretrained UNet into a refiner's in place: widened conv_in (unless it is already), mutual attention.

    Raises:
        ValueError: conv_in has neither the pretrained number of channels nor twice as many.
    """
    latent_channels = unet.config.out_channels
    if unet.config.in_channels == latent_channels:
        _widen(unet)
    elif unet.config.in_channels != 2 * latent_channels:
        raise ValueError(
            f"the UNet's config says in_channels {unet.config.in_channels}, so it is neither a base "
            f"({latent_channels}) nor a refiner ({2 * latent_channels}); take another checkpoint."
        )
    _set_self_attention(unet, lambda name: MutualAttention())
    return unet


def _set_self_attention(unet: UNet2DConditionModel, make: Callable[[str], object]) -> None:
    """Gives every attn1 what `make` makes by its name, whatever is there: diffusers' memory savers put in their own."""
    unet.set_attn_processor(
        {name: make(name) if name.endswith("attn1.processor") else old for name, old in unet.attn_processors.items()}
    )


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
