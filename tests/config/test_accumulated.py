"""Gradients of several micro-batches by the configuration: in which precision they are added up, and by whom."""

import json

import pytest

from refiner_ds.config.deepspeed import resolve
from refiner_ds.errors import UserError
from tests.config.test_deepspeed import BF16, flags


@pytest.mark.parametrize(
    ("network", "named", "accumulated_in"),
    [("bf16", "float32", "no"), ("bf16", "bf16", "bf16"), ("fp16", "torch.float32", "no"), ("bf16", None, "bf16")],
)
def test_gradients_are_added_up_in_the_precision_that_is_named_or_that_of_the_network(network, named, accumulated_in):
    config = {**BF16, "bf16": {"enabled": network == "bf16"}, "fp16": {"enabled": network == "fp16"}}
    config["data_types"] = {"grad_accum_dtype": named}
    assert resolve(config, flags(), 1).accumulated_in == accumulated_in


@pytest.mark.parametrize("named", ["fp16", "fp8", 32])
def test_a_precision_that_gradients_cannot_be_added_up_in_is_refused_in_a_sentence(named):
    words = (
        rf"^data_types.grad_accum_dtype {json.dumps(named)} is no precision .* in bf16 .*; write fp32, or leave it out"
    )
    with pytest.raises(UserError, match=words):
        resolve({**BF16, "data_types": {"grad_accum_dtype": named}}, flags(), 1)


@pytest.mark.parametrize(
    ("stage", "accumulation", "ranks", "whole"),
    [(1, 2, 8, True), (1, 1, 8, True), (2, 2, 8, False), (2, 2, 1, True), (2, 1, 1, True), (1, 1, 1, True)],
)
def test_gradients_are_kept_whole_where_a_rank_has_room_for_them(stage, accumulation, ranks, whole):
    config = {**BF16, "zero_optimization": {"stage": stage}}
    resolved = resolve(config, flags(gradient_accumulation_steps=accumulation), ranks)
    assert (resolved.adds_up_whole, resolved.num_ranks) == (whole, ranks)


@pytest.mark.parametrize("stage", [1, 2])
@pytest.mark.parametrize(("offload", "whole"), [({"device": "cpu"}, False), ({"device": "none"}, True), (None, True)])
def test_an_optimizer_on_the_cpu_leaves_gradients_to_deepspeed_and_one_that_is_not_there_does_not(
    stage, offload, whole
):
    config = {**BF16, "zero_optimization": {"stage": stage, "offload_optimizer": offload}}
    resolved = resolve(config, flags(gradient_accumulation_steps=2), 1)
    assert (resolved.adds_up_whole, resolved.offloads) == (whole, not whole)
