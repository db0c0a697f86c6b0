"""A network compiled by torch (TorchInductor), whole, once for each shape that it is trained on."""

import platform
from collections.abc import Iterator
from contextlib import contextmanager

import torch
import torch._dynamo
import torch._inductor.config
from torch import Tensor, nn

from refiner_ds.errors import UserError

SHAPES = 64
"""So many shapes of a micro-batch are compiled before it is a mistake; torch would go on without compiling at 8."""


def compile_network(network: nn.Module) -> None:
    """From now on the network runs compiled, but within `eagerly`; a part that cannot be compiled is an error.

    Raises:
        UserError: nothing can be compiled here.
    """
    _try_out(next(network.parameters()).device)
    torch._dynamo.config.recompile_limit = max(SHAPES, torch._dynamo.config.recompile_limit)
    # not the whole call, where DeepSpeed has hooks that no graph can hold
    network.forward = torch.compile(network.forward, dynamic=False, fullgraph=True)


@contextmanager
def eagerly() -> Iterator[None]:
    """Within, networks run as they are written: for shapes that come once, and to count what runs."""
    with torch.compiler.set_stance("force_eager"):
        yield


def _try_out(device: torch.device) -> None:
    """Compiles something small, as the tools that are missing would be missed minutes later, by each rank alone."""
    try:
        with torch._inductor.config.patch(force_disable_caches=True):
            torch.compile(_small, fullgraph=True)(torch.ones(2, device=device))
    except Exception as error:  # torch, Triton and the compiler have each their own
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        fault = next((line for line in lines if "error:" in line), lines[0] if lines else type(error).__name__)
        raise UserError(
            f"--compile: {platform.node()} can compile nothing ({fault}); install a C++ compiler with Python's headers "
            "(Debian: apt install g++ python3-dev), name one in CXX, or leave --compile out."
        ) from error


def _small(rows: Tensor) -> Tensor:
    return rows.sin() + rows
