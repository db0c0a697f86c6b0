"""How many weights a refiner has: trained, frozen within the network, frozen beside it."""

from dataclasses import dataclass
from typing import Protocol

from torch import nn


class Parts(Protocol):
    """What is counted: the network, in which weights that are trained require gradients, and the parts beside it."""

    @property
    def network(self) -> nn.Module:
        """What is trained."""

    @property
    def frozen(self) -> dict[str, nn.Module]:
        """The parts beside it that lie on every device, by what people call them."""


@dataclass(frozen=True)
class Counts:
    """Numbers of weights: of the network those that are trained and those that are not, and of the frozen parts.

    `largest` is the number of values in the largest trained tensor.
    """

    trained: int
    held: int
    largest: int
    frozen: dict[str, int]

    @property
    def loaded(self) -> int:
        """All weights, as a rank reads them before it starts."""
        return self.trained + self.held + sum(self.frozen.values())


def count(parts: Parts) -> Counts:
    """Counts the weights; they may lie on the meta device."""
    trained = [weight.numel() for weight in parts.network.parameters() if weight.requires_grad]
    return Counts(
        trained=sum(trained),
        held=_values(parts.network) - sum(trained),
        largest=max(trained),
        frozen={name: _values(part) for name, part in parts.frozen.items()},
    )


def _values(module: nn.Module) -> int:
    return sum(weight.numel() for weight in module.parameters())
