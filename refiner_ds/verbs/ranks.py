"""The ranks of a verb beside training: each has a share, one sentence tells a mistake, and figures come together."""

import contextlib
import os
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import torch

from refiner_ds.errors import UserError
from refiner_ds.train.interface import VARIABLE, interface_towards
from refiner_ds.world import World, launched

PATIENCE = timedelta(hours=12)
"""How long a rank that is done waits for the others; a launcher ends all where one fails."""


@contextlib.contextmanager
def as_rank(world: World) -> Iterator[None]:
    """Within, what is wrong with the command is rank 0's to tell, and each rank tells what is wrong with its share.

    Raises:
        UserError: as it was raised within, with the rank's name on others than rank 0.
    """
    try:
        yield
    except UserError as error:
        if world.is_main:
            raise
        time.sleep(3)  # what all ranks find is rank 0's to tell, and launchers end all ranks at the first that ends
        raise UserError(f"rank {world.rank} of {world.size}: {error}") from error


@contextlib.contextmanager
def gathering(world: World) -> Iterator[Callable[[Any], list[Any]]]:
    """Yields a function that gives all ranks what each has given, by rank; it travels over the CPU's network."""
    if world.size == 1:
        yield lambda item: [item]
        return
    os.environ.update(launched(os.environ))
    if world.spans_nodes and VARIABLE not in os.environ:
        os.environ[VARIABLE] = interface_towards(os.environ["MASTER_ADDR"])
    torch.distributed.init_process_group("gloo", timeout=PATIENCE, rank=world.rank, world_size=world.size)

    def gathered(item: Any) -> list[Any]:
        given: list[Any] = [None] * world.size
        torch.distributed.all_gather_object(given, item)
        return given

    try:
        yield gathered
    finally:
        torch.distributed.destroy_process_group()
