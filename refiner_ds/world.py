"""Where this process stands among all of them: plain arithmetic on launcher variables, no process group needed."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import chain, repeat

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
    def spans_nodes(self) -> bool:
        """True where other ranks run on other nodes."""
        return self.local_size < self.size

    @property
    def ranks_of_node(self) -> range:
        """The ranks of this node, which launchers number one after the other."""
        first = self.rank - self.local_rank
        return range(first, min(first + self.local_size, self.size))

    def share(self, count: int) -> range:
        """Indices of 0..count-1 that fall to this rank, every size-th: all ranks together cover each exactly once."""
        return range(self.rank, count, self.size)


def launched(environment: Mapping[str, str]) -> dict[str, str]:
    """The variables of the job's launcher, in torchrun's words where it is srun; none for a plain `python`.

    srun starts a task for every rank and says nothing of a meeting point: that is the first node of the step, on a port
    of 12000 to 31999 that the job's number gives, unless MASTER_ADDR and MASTER_PORT are set.

    Raises:
        UserError: several copies were started without ranks, or tasks that are not numbered node by node.
    """
    names = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "LOCAL_SIZE", "MASTER_ADDR", "MASTER_PORT")
    given = {name: environment[name] for name in names if environment.get(name)}
    if "RANK" in given or "WORLD_SIZE" in given:
        return given
    if environment.get("SLURM_STEP_NUM_TASKS", "1") != "1":
        return {**_variables_of_srun(environment), **given}
    if environment.get("OMPI_COMM_WORLD_SIZE", "1") != "1":
        raise UserError(
            f"OMPI_COMM_WORLD_SIZE is {environment['OMPI_COMM_WORLD_SIZE']} but RANK is not set, so every process "
            "would train the whole run for itself; start it with torchrun, deepspeed, accelerate launch or srun."
        )
    return {}


def _variables_of_srun(environment: Mapping[str, str]) -> dict[str, str]:
    rank, local_rank = _integer(environment, "SLURM_PROCID"), _integer(environment, "SLURM_LOCALID")
    tasks = _tasks_per_node(environment.get("SLURM_STEP_TASKS_PER_NODE", ""))
    node = _integer(environment, "SLURM_NODEID")
    if node >= len(tasks) or rank != sum(tasks[:node]) + local_rank:
        raise UserError(
            f"srun has given task {local_rank} of node {node} the rank {rank}, so the ranks of a node do not follow "
            "each other and would not share its cache; start it with srun --distribution=block."
        )
    number = _integer(environment, "SLURM_JOB_ID", "0") * 16 + _integer(environment, "SLURM_STEP_ID", "0")
    return {
        "RANK": str(rank),
        "WORLD_SIZE": environment["SLURM_STEP_NUM_TASKS"],
        "LOCAL_RANK": str(local_rank),
        "LOCAL_WORLD_SIZE": str(tasks[node]),
        "MASTER_ADDR": first_node(environment.get("SLURM_STEP_NODELIST", "")),
        "MASTER_PORT": str(12000 + number % 20000),
    }


def _tasks_per_node(text: str) -> list[int]:
    """Tasks by node, of SLURM's shorthand such as 4(x2),1."""
    found = re.findall(r"(\d+)(?:\(x(\d+)\))?", text)
    return list(chain.from_iterable(repeat(int(tasks), int(times or 1)) for tasks, times in found))


def first_node(nodes: str) -> str:
    """The first host of a SLURM node list such as gpu[07-12,20],login1.

    Raises:
        UserError: there is none.
    """
    first = re.match(r"(?:[^,\[]|\[[^\]]*\])+", nodes)
    if not first:
        raise UserError(
            f"SLURM_STEP_NODELIST is {nodes!r}, so the ranks have nowhere to meet; start the tasks with srun, or set "
            "MASTER_ADDR to the node of rank 0."
        )
    return re.sub(r"\[(\w+)[^\]]*\]", r"\1", first[0])


def world_from(environment: Mapping[str, str]) -> World:
    """Reads what torchrun, deepspeed, accelerate and srun set; a plain `python` without it is a world of one.

    Raises:
        UserError: the launcher variables are incomplete or contradict each other.
    """
    environment = launched(environment)
    if not ("RANK" in environment or "WORLD_SIZE" in environment):
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


def _integer(environment: Mapping[str, str], name: str, default: str | None = None) -> int:
    value = environment.get(name, default)
    if value is None or not value.isdecimal():
        raise UserError(
            f"the environment variable {name} is {value!r}, so this process cannot tell its place among the ranks; "
            "let a launcher set it beside RANK and WORLD_SIZE, or unset both to train on one device."
        )
    return int(value)
