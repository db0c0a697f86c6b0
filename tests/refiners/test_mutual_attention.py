"""The surgery on the UNet: what it keeps, what it adds, and who attends to whom."""

import pytest
import torch
from diffusers.models.attention_processor import Attention
from torch.nn.functional import softmax
from torch.utils.flop_counter import FlopCounterMode

from refiner_ds.refiners.unclip.base import TINY, _unet
from refiner_ds.refiners.unclip.portable.mutual_attention import (
    MutualAttention,
    PairsApart,
    make_refiner,
    pairs_of,
    rows_of,
)


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
    with pytest.raises(ValueError, match="in_channels 9"):
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
def test_pairs_apart_give_the_same_targets_and_leave_the_network_as_it_was(unet):
    make_refiner(unet)
    inputs = _inputs(4, 8)
    expected = pairs_of(unet(**inputs).sample)[1]
    sources, targets = ({name: value[row::2] for name, value in inputs.items()} for row in (0, 1))
    with PairsApart(unet) as apart:
        kept = apart.remember(lambda: unet(**sources))
        other = apart.remember(lambda: unet(**{**sources, "sample": -sources["sample"]}))
        for memory, same in ((kept, True), (other, False), (kept, True)):
            apart.attend_to(memory)
            assert torch.allclose(unet(**targets).sample, expected, atol=1e-5) == same
    assert torch.equal(pairs_of(unet(**inputs).sample)[1], expected)


@torch.no_grad()
def test_pairs_apart_take_about_half_of_the_arithmetic_of_many_steps(unet):
    make_refiner(unet)
    inputs, steps = _inputs(2, 8, side=32), 21
    sources, targets = ({name: value[row::2] for name, value in inputs.items()} for row in (0, 1))
    with FlopCounterMode(display=False) as in_pairs:
        unet(**inputs)
    with FlopCounterMode(display=False) as apart, PairsApart(unet) as pairs:
        pairs.attend_to(pairs.remember(lambda: unet(**sources)))
        unet(**targets)
    once = in_pairs.get_total_flops()
    with FlopCounterMode(display=False) as source:
        unet(**{name: torch.cat([value, value]) for name, value in sources.items()})
    assert apart.get_total_flops() <= 1.01 * once  # nothing is computed twice
    per_target = apart.get_total_flops() - source.get_total_flops() / 2
    assert steps * once > 1.8 * (once / 2 + steps * per_target)


@torch.no_grad()
def test_a_target_attends_to_all_of_its_references(unet):
    """Two equal references weigh the same tokens twice; the second of two different ones is seen, by its own pair."""
    make_refiner(unet)
    inputs = _inputs(4, 8)
    sources, targets = ({name: value[row::2] for name, value in inputs.items()} for row in (0, 1))

    def predicted(samples):
        """With the source latents (pairs * 2, 8, h, w), two for each pair."""
        with PairsApart(unet, num_references=2) as apart:
            rows = {name: value.repeat_interleave(2, dim=0) for name, value in sources.items()}
            apart.attend_to(apart.remember(lambda: unet(**{**rows, "sample": samples})))
            return unet(**targets).sample

    twice = sources["sample"].repeat_interleave(2, dim=0)
    changed = twice.clone()
    changed[3] = -changed[3]  # the second reference of the second pair
    assert torch.allclose(predicted(twice)[0], predicted(changed)[0], atol=1e-5)
    assert not torch.allclose(predicted(twice)[1], predicted(changed)[1], atol=1e-3)
    swapped = changed[[1, 0, 3, 2]]  # attention knows no order of tokens
    assert torch.allclose(predicted(changed), predicted(swapped), atol=1e-5)


def test_rows_and_pairs_are_inverse():
    source, target = torch.randn(3, 2), torch.randn(3, 2)
    rows = rows_of(source, target)
    assert torch.equal(rows[2], source[1]) and torch.equal(rows[3], target[1])
    assert all(torch.equal(a, b) for a, b in zip(pairs_of(rows), (source, target), strict=True))
