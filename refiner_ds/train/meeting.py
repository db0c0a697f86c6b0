"""Where the ranks of a job meet: what they must agree on, and what is said where they cannot meet or one is lost."""

import json
import os
import platform
from collections.abc import Mapping
from datetime import timedelta
from typing import Any

import torch
from torch.distributed.rendezvous import rendezvous

from refiner_ds.errors import Failure, UserError
from refiner_ds.supervise.ending import LOST_PEER
from refiner_ds.world import World

MISTAKE_LIMIT = timedelta(minutes=1)
"""How long a rank waits to tell the others of a mistake: they may see none, and wait for it."""


class SharedMistake(UserError):
    """A mistake that all ranks are told of alike."""


def is_loss_of_peer(error: BaseException) -> bool:
    """True for what a rank fails with because another one is gone; torch has no type for gloo's errors."""
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


def share_mistakes(world: World, mistake: UserError | None, timeout: timedelta) -> torch.distributed.Store | None:
    """Ends all ranks with what one has found to be wrong by itself, e.g. as its node sees no shards. All must call.

    They meet at a store before there is a process group, which a rank without a GPU could not join.

    Returns:
        the store, to be kept until there is a process group: that meets at the same place, which goes with rank 0's.

    Raises:
        UserError: on all ranks: the mistake of the first that has one.
        torch.distributed.DistError: the ranks do not meet; not where this one has a mistake, which is raised then.
    """
    if world.size == 1:
        if mistake:
            raise mistake
        return None
    limit = min(timeout, MISTAKE_LIMIT) if mistake else timeout
    try:
        store = next(iter(rendezvous("env://", world.rank, world.size, timeout=limit)))[0]
        said = _said_by_all(store, world, json.dumps([platform.node(), str(mistake or "")]))
    except torch.distributed.DistError:
        if mistake:
            raise mistake from None
        raise
    found = [(rank, host, words) for rank, (host, words) in enumerate(map(json.loads, said)) if words]
    if not found:
        return store
    rank, host, words = found[0]
    is_common = len(found) == world.size and all(other == words for _, _, other in found)
    raise SharedMistake(words if is_common else f"rank {rank} on {host}: {words}")


def _said_by_all(store: torch.distributed.Store, world: World, words: str) -> list[str]:
    """What each rank gives, by rank, through a store that rank 0 keeps until all have read from it."""
    attempt = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")  # of a torchrun that keeps the store itself
    said, heard = ([f"refiner_ds/{attempt}/{word}/{rank}" for rank in range(world.size)] for word in ("said", "heard"))
    store.set(said[world.rank], words)
    store.wait(said)
    found = [each.decode() for each in store.multi_get(said)]
    store.set(heard[world.rank], "")
    if world.is_main:
        store.wait(heard)
    return found


def no_meeting(world: World, timeout: timedelta, error: Exception) -> UserError | Failure:
    """The failure of the meeting in words."""
    address, port = os.environ["MASTER_ADDR"], os.environ["MASTER_PORT"]
    if "EADDRINUSE" in str(error):
        return UserError(
            f"port {port} of {platform.node()}, where the ranks are to meet, is in use, perhaps by another job or by "
            "one that is still ending; give another --master_port (torchrun: --master-port, accelerate: "
            "--main_process_port, srun: MASTER_PORT)."
        )
    reason = str(error).strip().splitlines()[0][:300]
    return Failure(
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


def require_agreement(settings: Mapping[str, Any], remedy: str) -> None:
    """Ends every rank where they do not all say the same, e.g. because nodes see different folders. All must call.

    Raises:
        UserError: on all ranks; tells the first setting in which a rank differs from rank 0, and what both say.
    """
    given = gathered(({name: str(value) for name, value in settings.items()}, platform.node()))
    (first, first_host), *others = given
    for rank, (other, host) in enumerate(others, start=1):
        for name in first:
            if other.get(name) != first[name]:
                raise SharedMistake(
                    f"the ranks do not agree on what to train: rank 0 on {first_host} has {name} {first[name]} and "
                    f"rank {rank} on {host} has {name} {other.get(name)}; {remedy}"
                )
