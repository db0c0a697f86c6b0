"""A network compiled by torch (TorchInductor), whole, once for each shape that it is trained on."""

import os
import platform
import shutil
from collections.abc import Iterator
from contextlib import contextmanager

import torch
import torch._dynamo
from torch import nn

from refiner_ds.errors import UserError

COMPILER = "g++"
"""What torch takes unless CXX names another."""
SHAPES = 64
"""So many shapes of a micro-batch are compiled before it is a mistake; torch would go on without compiling at 8."""


def compile_network(network: nn.Module) -> None:
    """From now on the network runs compiled, but within `eagerly`; a part that cannot be compiled is an error.

    Raises:
        UserError: there is no compiler.
    """
    compiler = os.environ.get("CXX") or COMPILER
    if not shutil.which(compiler):
        raise UserError(
            f"--compile takes a C++ compiler and {platform.node()} has no {compiler}, so nothing can be compiled; "
            "install it (Debian: apt install g++), name another in CXX, or leave --compile out."
        )
    torch._dynamo.config.recompile_limit = max(SHAPES, torch._dynamo.config.recompile_limit)
    # not the whole call, where DeepSpeed has hooks that no graph can hold
    network.forward = torch.compile(network.forward, dynamic=False, fullgraph=True)


@contextmanager
def eagerly() -> Iterator[None]:
    """Within, networks run as they are written: for shapes that come once, and to count what runs."""
    with torch.compiler.set_stance("force_eager"):
        yield
