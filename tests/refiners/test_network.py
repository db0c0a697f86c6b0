"""The surgery on the UNet: what it keeps, what it adds, and who attends to whom."""

import pytest
import torch
from diffusers.models.attention_processor import Attention
from torch.nn.functional import softmax

from refiner_ds.errors import UserError
from refiner_ds.refiners.unclip.base import TINY, _unet
from refiner_ds.refiners.unclip.network import MutualAttention, make_refiner, pairs_of, rows_of, source_computed_once


@pytest.fixture
def unet():
    torch.manual_seed(0)
    made = _unet(TINY).eval()
    for parameter in made.parameters():  # fresh networks have zeros and ones where equality would mean nothing
        parameter.data += 0.05 * torch.randn_like(parameter)
    return made


def _inputs(rows, channels, side=12):
    torch.manual_seed(1)
    return {
        "sample": torch.randn(rows, channels, side, side),
        "timestep": torch.tensor([0, 700] * (rows // 2) if rows > 1 else [0]),
        "encoder_hidden_states": torch.randn(rows, 77, TINY.text_width),
        "class_labels": torch.randn(rows, 2 * TINY.embedding),
    }


@torch.no_grad()
def test_the_source_row_computes_what_the_pretrained_unet_does_whatever_the_render(unet):
    inputs = _inputs(2, 8)
    alone = {name: value[:1] for name, value in inputs.items()}
    alone["sample"] = alone["sample"][:, :4]
    before = unet(**alone).sample
    after = make_refiner(unet)(**inputs).sample
    assert torch.allclose(after[:1], before, atol=1e-5)


def test_the_config_tells_the_widened_input_and_a_second_surgery_changes_nothing(unet):
    make_refiner(unet)
    assert unet.config.in_channels == 8 == unet.conv_in.weight.shape[1]
    weight = unet.conv_in.weight.clone()
    assert torch.equal(make_refiner(unet).conv_in.weight, weight)


def test_a_unet_with_other_input_channels_is_refused(unet):
    unet.register_to_config(in_channels=9)
    with pytest.raises(UserError, match="in_channels 9"):
        make_refiner(unet)


def test_every_self_attention_is_mutual_and_every_cross_attention_stock(unet):
    processors = make_refiner(unet).attn_processors
    assert any("mid_block" in name for name in processors)
    for name, processor in processors.items():
        assert isinstance(processor, MutualAttention) == ("attn1" in name), name


@torch.no_grad()
def test_mutual_attention_is_two_plain_attentions_per_pair():
    torch.manual_seed(2)
    attention = Attention(query_dim=24, heads=3, dim_head=8)
    states = torch.randn(4, 10, 24)
    expected = []
    for source, target in states.unflatten(0, (2, 2)):
        for queries, tokens in ((source, source), (target, torch.cat([target, source]))):
            q, k, v = attention.to_q(queries), attention.to_k(tokens), attention.to_v(tokens)
            heads = [
                softmax(q[:, i : i + 8] @ k[:, i : i + 8].T / 8**0.5, dim=-1) @ v[:, i : i + 8] for i in range(0, 24, 8)
            ]
            expected.append(attention.to_out[0](torch.cat(heads, dim=1)))
    assert torch.allclose(MutualAttention()(attention, states), torch.stack(expected), atol=1e-5)


def test_the_target_sees_the_source_and_learns_through_it_but_never_the_reverse(unet):
    inputs = _inputs(2, 8)
    inputs["sample"].requires_grad_()
    source, target = pairs_of(make_refiner(unet)(**inputs).sample)
    to_source = torch.autograd.grad(source.square().sum(), inputs["sample"], retain_graph=True)[0]
    to_target = torch.autograd.grad(target.square().sum(), inputs["sample"])[0]
    assert to_source[1].abs().max() == 0
    assert to_target[0, :4].abs().max() > 0


@torch.no_grad()
def test_the_source_computed_once_gives_the_same_targets_and_leaves_the_network_as_it_was(unet):
    make_refiner(unet)
    inputs = _inputs(4, 8)
    expected = pairs_of(unet(**inputs).sample)[1]
    sources, targets = ({name: value[row::2] for name, value in inputs.items()} for row in (0, 1))
    with source_computed_once(unet, lambda: unet(**sources)):
        for _ in range(2):
            assert torch.allclose(unet(**targets).sample, expected, atol=1e-5)
    assert torch.equal(pairs_of(unet(**inputs).sample)[1], expected)


def test_rows_and_pairs_are_inverse():
    source, target = torch.randn(3, 2), torch.randn(3, 2)
    rows = rows_of(source, target)
    assert torch.equal(rows[2], source[1]) and torch.equal(rows[3], target[1])
    assert all(torch.equal(a, b) for a, b in zip(pairs_of(rows), (source, target), strict=True))
