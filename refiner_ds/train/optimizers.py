"""Makes the chosen optimizer: a class of torch.optim, or bitsandbytes' AdamW with moments of 8 bits."""

import importlib
import inspect
from collections.abc import Iterable
from typing import Any

import torch
from torch import nn

from refiner_ds.config.optimizer import EIGHT_BIT, OptimizerChoice
from refiner_ds.errors import UserError

NOT_OURS = {"params", "lr", "maximize", "capturable", "differentiable"}
"""Parameters of torch's classes that the JSON cannot set: what the engine sets, and what would not train."""


def make_optimizer(choice: OptimizerChoice, parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
    """The optimizer at learning rate zero, which every update sets anew; torch's Adam and AdamW are fused."""
    params = dict(choice.params)
    if choice.name in ("AdamW", "Adam") and "foreach" not in params:
        params.setdefault("fused", True)
    return _class_of(choice)(parameters, lr=0.0, **params)


def require_sound(choice: OptimizerChoice) -> None:
    """Refuses an optimizer that cannot be made, by making a small one and updating a weight with it.

    Raises:
        UserError: a parameter that the class does not have or does not take, or bitsandbytes is not installed.
    """
    made = _class_of(choice)
    if choice.name == EIGHT_BIT:
        return  # its parameters are flags, which have limits of their own
    known = [name for name in inspect.signature(made).parameters if name not in NOT_OURS]
    if strange := sorted(choice.params.keys() - known):
        raise UserError(
            f"optimizer.params.{strange[0]} in the DeepSpeed JSON is no parameter of {choice.name} that can be set "
            f"here; remove it, or take of {', '.join(known)}."
        )
    weight = nn.Parameter(torch.zeros(1))
    weight.grad = torch.zeros(1)
    try:
        made([weight], lr=0.0, **choice.params).step()
    except (ArithmeticError, AttributeError, RuntimeError, TypeError, ValueError) as error:
        raise UserError(
            f"optimizer.params in the DeepSpeed JSON, with what flags have filled, makes no {choice.name} ({error}); "
            "mend the parameter that it names."
        ) from error


def _class_of(choice: OptimizerChoice) -> Any:
    if choice.name != EIGHT_BIT:
        return getattr(torch.optim, choice.name)
    try:
        # by name, as it is optional, takes a second to load, and complains on its own where there is no GPU
        return importlib.import_module("bitsandbytes.optim").AdamW8bit
    except ImportError as error:
        raise UserError(
            f"--use_8bit_adam needs bitsandbytes, which is not here ({error}); pip install bitsandbytes, or leave the "
            "flag out."
        ) from error
