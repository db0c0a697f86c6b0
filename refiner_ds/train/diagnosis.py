"""What one sample does to a network: its losses, the norm of its gradient, and where NaN or infinity first appears."""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from refiner_ds.batch import Batch
from refiner_ds.refiners.protocol import Refiner, scalars

INPUT = "its input"
"""Stands for a module where what the frozen parts have made of the pictures is not finite already."""


@dataclass(frozen=True)
class Diagnosis:
    """Of one sample alone.

    Attributes:
        losses: by name.
        gradient_norm: norm of the gradient of its `loss` over all trained weights, before any loss scale.
        first: module of the network whose output was the first that is not finite; empty where none was.
    """

    losses: dict[str, float]
    gradient_norm: float
    first: str

    @property
    def is_finite(self) -> bool:
        """Whether losses and gradient are."""
        return all(map(math.isfinite, (*self.losses.values(), self.gradient_norm)))


def diagnose(refiner: Refiner, batch: Batch, dtype: torch.dtype, seed: int) -> Diagnosis:
    """Looks at a batch of one sample, which is on the device; the network has the precision `dtype`."""
    network = refiner.network
    network.zero_grad()
    with _watched(network) as found:
        losses = refiner.loss(network, dtype, refiner.encode(batch), seed)
    losses["loss"].backward()
    gradients = [parameter.grad for parameter in network.parameters() if parameter.grad is not None]
    norm = torch.stack([gradient.float().norm() for gradient in gradients]).norm()
    values = {name: float(loss.detach()) for name, loss in scalars(losses).items()}
    return Diagnosis(values, float(norm), next(iter(found), ""))


@contextmanager
def _watched(network: nn.Module) -> Iterator[list[str]]:
    """Collects the names of modules whose output is not finite, in the order in which they end."""
    found: list[str] = []

    def look(name: str, values: Any) -> None:
        if not all(bool(tensor.isfinite().all()) for tensor in _tensors(values)):
            found.append(name)

    hooks = [network.register_forward_pre_hook(lambda _, given, named: look(INPUT, (given, named)), with_kwargs=True)]
    for name, module in network.named_modules():
        hooks.append(module.register_forward_hook(lambda _, __, output, name=name: look(name or "its output", output)))
    try:
        yield found
    finally:
        for hook in hooks:
            hook.remove()


def _tensors(values: Any) -> Iterator[Tensor]:
    """All tensors of floating point in what a module takes or gives."""
    if isinstance(values, Tensor):
        if values.is_floating_point():
            yield values
    elif isinstance(values, dict):
        yield from _tensors(tuple(values.values()))
    elif isinstance(values, tuple | list):
        for value in values:
            yield from _tensors(value)
