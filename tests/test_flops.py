"""The count of arithmetic: by hand, against torch's own counter, with checkpointing; and no number changes by it."""

import torch
from torch import nn
from torch.nn.functional import scaled_dot_product_attention
from torch.utils.checkpoint import checkpoint
from torch.utils.flop_counter import FlopCounterMode

from refiner_ds.flops import Arithmetic

B, IN, OUT, SIDE = 2, 3, 5, 8


def both_ways(layer, inputs):
    """Floating-point operations of the way forth, and of the way back."""
    with Arithmetic() as forth:
        loss = layer(inputs).square().sum()
    with Arithmetic(goes_back=True) as back:
        loss.backward()
    return forth.flops, back.flops


def test_a_linear_layer_and_a_convolution_come_to_what_a_hand_counts():
    product = 2 * B * IN * OUT  # for the input no gradients are wanted
    assert both_ways(nn.Linear(IN, OUT), torch.randn(B, IN)) == (product, product)
    assert both_ways(nn.Linear(IN, OUT), torch.randn(B, IN, requires_grad=True)) == (product, 2 * product)
    convolution = 2 * B * SIDE * SIDE * 3 * 3 * IN * OUT
    layer = nn.Conv2d(IN, OUT, 3, padding=1)
    assert both_ways(layer, torch.randn(B, IN, SIDE, SIDE, requires_grad=True)) == (convolution, 2 * convolution)


def test_attention_is_two_products_forth_and_four_back():
    heads, query_length, key_length, width = 2, 7, 9, 4
    query = torch.randn(B, heads, query_length, width, requires_grad=True)
    key = torch.randn(B, heads, key_length, width, requires_grad=True)
    product = 2 * B * heads * query_length * key_length * width
    assert both_ways(lambda query: scaled_dot_product_attention(query, key, key), query) == (2 * product, 4 * product)


def network():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(IN, 8, 3), nn.GroupNorm(2, 8), nn.SiLU(), nn.Conv2d(8, OUT, 3), nn.Flatten(), nn.Linear(80, 7)
    )


def test_it_agrees_with_the_counter_of_torch():
    layers, inputs = network(), torch.randn(B, IN, SIDE, SIDE)
    with FlopCounterMode(display=False) as counter:
        layers(inputs).square().sum().backward()
    assert sum(both_ways(layers, inputs)) == counter.get_total_flops()


def test_what_checkpointing_computes_again_is_left_out():
    layers, inputs = network(), torch.randn(B, IN, SIDE, SIDE, requires_grad=True)
    expected = both_ways(layers, inputs)
    for reentrant in (False, True):
        assert both_ways(lambda x, r=reentrant: checkpoint(layers, x, use_reentrant=r), inputs) == expected


def test_frozen_layers_count_as_others_do():
    layers, inputs = network(), torch.randn(B, IN, SIDE, SIDE)
    forth, _ = both_ways(layers, inputs)
    with torch.no_grad(), Arithmetic() as arithmetic:
        layers(inputs)
    assert arithmetic.flops == forth


def test_counting_changes_no_bit_of_what_is_computed():
    inputs, found = torch.randn(B, IN, SIDE, SIDE, dtype=torch.bfloat16), []
    for counts in (False, True):
        layers = network().to(torch.bfloat16)
        if counts:
            both_ways(layers, inputs)
        else:
            layers(inputs).square().sum().backward()
        found.append([parameter.grad for parameter in layers.parameters()])
    assert all(torch.equal(one, other) for one, other in zip(*found, strict=True))
