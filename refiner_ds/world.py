"""Where this process stands among all of them: plain arithmetic on launcher variables, no process group needed."""

from collections.abc import Mapping
from dataclasses import dataclass

from refiner_ds.errors import UserError


@dataclass(frozen=True)
class World:
    """One process of a job: `rank` of `size` in all, `local_rank` of `local_size` on this node."""

    rank: int = 0
    size: int = 1
    local_rank: int = 0
    local_size: int = 1

    @property
    def is_main(self) -> bool:
        """True on the one rank that prints, tracks and commits."""
        return self.rank == 0

    @property
    def ranks_of_node(self) -> range:
        """The ranks of this node, which launchers number one after the other."""
        first = self.rank - self.local_rank
        return range(first, min(first + self.local_size, self.size))

    def share(self, count: int) -> range:
        """Indices of 0..count-1 that fall to this rank, every size-th: all ranks together cover each exactly once."""
        return range(self.rank, count, self.size)


def world_from(environment: Mapping[str, str]) -> World:
    """Reads what torchrun, deepspeed and accelerate set; a plain `python` without these variables is a world of one.

    Raises:
        UserError: the launcher variables are incomplete or contradict each other.
    """
    if "RANK" not in environment and "WORLD_SIZE" not in environment:
        _refuse_copies(environment)
        return World()
    rank, size = _integer(environment, "RANK"), _integer(environment, "WORLD_SIZE")
    if not 0 <= rank < size:
        raise UserError(
            f"RANK={rank} is outside a world of WORLD_SIZE={size}, so this process has no share of the data; "
            "start the job with torchrun, deepspeed or accelerate launch, which set both."
        )
    local_rank = _integer(environment, "LOCAL_RANK", "0")
    # torchrun and accelerate name it LOCAL_WORLD_SIZE, the deepspeed launcher LOCAL_SIZE
    name = "LOCAL_WORLD_SIZE" if environment.get("LOCAL_WORLD_SIZE") else "LOCAL_SIZE"
    local_size = _integer(environment, name, str(size))
    if local_rank >= local_size:
        raise UserError(
            f"LOCAL_RANK={local_rank} is outside a node of {name}={local_size} processes, so this one has no device; "
            "start the job with torchrun, deepspeed or accelerate launch, which set both."
        )
    return World(rank, size, local_rank, local_size)


def _refuse_copies(environment: Mapping[str, str]) -> None:
    """Refuses what would be several worlds of one, all training the same run side by side."""
    for name in ("SLURM_STEP_NUM_TASKS", "OMPI_COMM_WORLD_SIZE"):
        if environment.get(name, "1") != "1":
            raise UserError(
                f"{name} is {environment[name]} but RANK is not set, so every task would train the whole run for "
                "itself; start one task a node, and in it torchrun or the deepspeed launcher."
            )


def _integer(environment: Mapping[str, str], name: str, default: str | None = None) -> int:
    value = environment.get(name, default)
    if value is None or not value.isdecimal():
        raise UserError(
            f"the environment variable {name} is {value!r}, so this process cannot tell its place among the ranks; "
            "let a launcher set it beside RANK and WORLD_SIZE, or unset both to train on one device."
        )
    return int(value)
