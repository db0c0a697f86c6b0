"""The rates of torch's schedulers, tabulated by stepping the real one once over the whole run."""

import inspect
from typing import Any

import torch

from refiner_ds.config.scheduler import PEAK
from refiner_ds.errors import UserError

NOT_OURS = {"optimizer", "last_epoch", "scale_fn"}


def rates_of_torch(name: str, params: dict[str, Any], peak: float, total_steps: int) -> list[float]:
    """The learning rate of every update under torch.optim.lr_scheduler's class `name`, one of its steps an update.

    Raises:
        UserError: a parameter that the class does not have or does not take.
    """
    made = getattr(torch.optim.lr_scheduler, name)
    params = {**params, **({PEAK[name]: peak} if name in PEAK else {})}
    known = [parameter for parameter in inspect.signature(made).parameters if parameter not in NOT_OURS]
    if strange := sorted(params.keys() - known):
        raise UserError(
            f"scheduler.params.{strange[0]} in the DeepSpeed JSON is no parameter of {name}; "
            f"remove it, or take of {', '.join(known)}."
        )
    if "cycle_momentum" in known and params.get("cycle_momentum") is not False:
        raise UserError(
            f"scheduler.type {name} in the DeepSpeed JSON cycles the momentum too, which a resumed run cannot seek; "
            'set "cycle_momentum": false.'
        )
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=peak)
    try:
        scheduler = made(optimizer, **params)
        rates = []
        for step in range(total_steps):
            rates.append(float(optimizer.param_groups[0]["lr"]))
            optimizer.step()
            if step + 1 < total_steps:
                scheduler.step()
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
        raise UserError(
            f"scheduler.params in the DeepSpeed JSON makes no {name} for {total_steps} steps ({error}); "
            "mend the parameter that it names."
        ) from error
    return rates
