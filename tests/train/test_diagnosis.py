"""What a sample alone does to a network: loss, gradient, and where NaN or infinity begins."""

import math

import pytest
import torch
from torch import nn

from refiner_ds.batch import Batch
from refiner_ds.train.diagnosis import INPUT, diagnose


def _batch(value=7):
    pictures = torch.full((1, 3, 4, 4), value, dtype=torch.uint8)
    return Batch(pictures, pictures, pictures, (0,), ("key",))


class Chain:
    """A refiner whose network is two layers after each other; features are the mean of the pictures."""

    def __init__(self, *weights):
        self.network = nn.Sequential(*(nn.Linear(1, 1, bias=False) for _ in weights))
        for layer, weight in zip(self.network, weights, strict=True):
            layer.weight.data.fill_(weight)

    def encode(self, batch):
        return batch.gt.float().mean().view(1, 1)

    def loss(self, network, dtype, features, seed):
        return {"loss": network(features).sum()}


def test_a_sample_alone_tells_its_loss_and_the_norm_of_its_gradient():
    refiner = Chain(2.0, 3.0)
    for value in (7, 10):  # the one before leaves nothing behind
        found = diagnose(refiner, _batch(value), torch.float32, 0)
        assert found.losses == {"loss": 6.0 * value} and found.first == "" and found.is_finite
        assert found.gradient_norm == pytest.approx(math.hypot(3 * value, 2 * value))


@pytest.mark.parametrize(("weights", "first"), [((3e38, 1.0), "0"), ((2.0, 3e38), "1"), ((math.nan, 1.0), "0")])
def test_the_first_module_whose_output_is_not_finite_is_named(weights, first):
    found = diagnose(Chain(*weights), _batch(), torch.float32, 0)
    assert found.first == first and not found.is_finite


def test_what_the_frozen_parts_have_spoilt_is_told_from_what_the_network_does():
    refiner = Chain(1.0, 1.0)
    refiner.encode = lambda batch: torch.full((1, 1), math.inf)
    assert diagnose(refiner, _batch(), torch.float32, 0).first == INPUT


def test_a_gradient_alone_can_be_what_is_not_finite():
    found = diagnose(Chain(1e-30, 3e38), _batch(), torch.float32, 0)
    assert math.isfinite(found.losses["loss"]) and found.first == ""
    assert found.gradient_norm == math.inf and not found.is_finite
