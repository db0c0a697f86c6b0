"""Where the ranks of a job meet: what they must agree on, and what is said where they cannot meet or one is lost."""

import os
import platform
import re
from datetime import timedelta
from typing import Any

import torch

from refiner_ds.errors import UserError
from refiner_ds.world import World

LOST_PEER = re.compile(r"[Cc]onnection (closed|reset)|Broken pipe|Timed out|timed out|connectFullMesh|NCCL|gloo")
"""What gloo and NCCL say when another rank is gone; torch has no type for gloo's errors."""


def is_loss_of_peer(error: BaseException) -> bool:
    """True for what a rank fails with because another one is gone."""
    is_raised_by_torch = isinstance(error, RuntimeError) and not isinstance(error, torch.OutOfMemoryError)
    return is_raised_by_torch and bool(LOST_PEER.search(str(error)))


def gpu_of(world: World, num_gpus: int) -> int:
    """Index of a rank's GPU among those that it sees.

    Raises:
        UserError: it has none of its own.
    """
    if num_gpus == 1 and any(os.environ.get(name) for name in ("SLURM_GPUS_PER_TASK", "SLURM_NTASKS_PER_GPU")):
        return 0  # SLURM shows each task its own GPU alone
    if world.local_rank >= num_gpus:
        raise UserError(
            f"{platform.node()} has {num_gpus} GPUs and is given {world.local_size} ranks, but a rank needs one of its "
            "own; start as many ranks as there are GPUs (slots in a hostfile, --nproc-per-node, --num_processes)."
        )
    return world.local_rank


def no_meeting(world: World, timeout: timedelta, error: Exception) -> UserError:
    """The failure of the first collective in words."""
    address, port = os.environ["MASTER_ADDR"], os.environ["MASTER_PORT"]
    if "EADDRINUSE" in str(error):
        return UserError(
            f"port {port} of {platform.node()}, where the ranks are to meet, is in use, perhaps by another job or by "
            "one that is still ending; give another --master_port (torchrun: --master-port, accelerate: "
            "--main_process_port, srun: MASTER_PORT)."
        )
    reason = str(error).strip().splitlines()[0][:300]
    return UserError(
        f"rank {world.rank} of {world.size} on {platform.node()} could not meet the others at {address}:{port} within "
        f"{timeout.total_seconds():.0f} s ({reason}); see that all hosts were started and reach that address."
    )


def leave_process_group() -> None:
    """Leaves it, if it was joined."""
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


def gathered(item: Any) -> list[Any]:
    """What each rank gives, by rank. All ranks must call."""
    given: list[Any] = [None] * torch.distributed.get_world_size()
    torch.distributed.all_gather_object(given, item)
    return given


def require_agreement(what: str, remedy: str) -> None:
    """Ends every rank where they do not all say the same, e.g. because nodes see different folders. All must call.

    Raises:
        UserError: on all ranks; tells what rank 0 and the first rank that differs say.
    """
    said = gathered((what, platform.node()))
    (first, first_host), *others = said
    for rank, (other, host) in enumerate(others, start=1):
        if other != first:
            raise UserError(
                f"the ranks do not agree on what to train: rank 0 on {first_host} has {first} and rank {rank} on "
                f"{host} has {other}; {remedy}"
            )
