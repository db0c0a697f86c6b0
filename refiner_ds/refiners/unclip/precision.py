"""Weights in another precision: one at a time, and refused where one does not fit."""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from refiner_ds.errors import UserError

PRECISIONS = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}
"""By the names that flags have for them."""


def cast_network(network: Any, part: str, dtype: torch.dtype) -> None:
    """Casts all floating weights of a network in place; `part` is its name in the folder.

    Raises:
        UserError: see `cast`.
    """
    cast([*network.named_parameters(), *network.named_buffers()], part, dtype)


def cast(weights: Iterable[tuple[str, Tensor]], part: str, dtype: torch.dtype) -> None:
    """Casts finite floating tensors in place, one after another, so that there never are two copies of all.

    Raises:
        UserError: a weight is too large for the precision; names it.
    """
    for name, weight in weights:
        if not weight.is_floating_point() or weight.dtype == dtype:
            continue
        rounded = weight.detach().to(dtype)
        if not rounded.isfinite().all():
            raise UserError(
                f"--dtype {_name_of(dtype)}: {name} of the {part} has a weight of {weight.detach().abs().max():.6g}, "
                f"and numbers of this precision end at {torch.finfo(dtype).max:.6g}, so it would become infinity; "
                "take --dtype bf16 or fp32."
            )
        weight.data = rounded


def _name_of(dtype: torch.dtype) -> str:
    return next(name for name, known in PRECISIONS.items() if known == dtype)
