"""Where a process stands: launcher variables in, ranks and shares of the work out."""

import random

import pytest

from refiner_ds.errors import UserError
from refiner_ds.world import World, first_node, launched, world_from

SRUN = {
    "SLURM_STEP_NUM_TASKS": "5", "SLURM_STEP_TASKS_PER_NODE": "2(x2),1", "SLURM_STEP_NODELIST": "gpu[07-08,12]",
    "SLURM_JOB_ID": "4711", "SLURM_STEP_ID": "0", "SLURM_PROCID": "3", "SLURM_LOCALID": "1", "SLURM_NODEID": "1",
}  # fmt: skip


def test_a_plain_python_is_a_world_of_one():
    assert world_from({"PATH": "/bin"}) == World(rank=0, size=1, local_rank=0, local_size=1)
    assert world_from({}).is_main


@pytest.mark.parametrize("name", ["LOCAL_WORLD_SIZE", "LOCAL_SIZE"])
def test_the_variables_of_each_launcher_are_read(name):
    world = world_from({"RANK": "5", "WORLD_SIZE": "8", "LOCAL_RANK": "1", name: "4"})
    assert world == World(rank=5, size=8, local_rank=1, local_size=4)
    assert not world.is_main


def test_the_ranks_of_a_node_are_numbered_one_after_the_other():
    for rank in range(12):
        world = World(rank, 12, rank % 4, 4)
        assert rank in world.ranks_of_node and world.ranks_of_node == range(rank // 4 * 4, rank // 4 * 4 + 4)
    assert World().ranks_of_node == range(1) and World(2, 3, 0, 3).ranks_of_node == range(2, 3)


def test_without_the_size_of_the_node_all_ranks_are_taken_to_share_it():
    assert world_from({"RANK": "1", "WORLD_SIZE": "2"}).local_size == 2


@pytest.mark.parametrize(
    ("environment", "words"),
    [
        ({"RANK": "0"}, r"WORLD_SIZE is None, so this process cannot tell its place.*unset both"),
        ({"WORLD_SIZE": "2"}, r"RANK is None, so this process cannot tell its place.*unset both"),
        ({"RANK": "one", "WORLD_SIZE": "2"}, r"RANK is 'one'"),
        ({"RANK": "-1", "WORLD_SIZE": "2"}, r"RANK is '-1'"),
        ({"RANK": "2", "WORLD_SIZE": "2"}, r"RANK=2 is outside a world of WORLD_SIZE=2.*start the job with torchrun"),
        ({"RANK": "0", "WORLD_SIZE": "0"}, r"RANK=0 is outside a world of WORLD_SIZE=0"),
        ({"RANK": "0", "WORLD_SIZE": "2", "LOCAL_RANK": "x"}, "LOCAL_RANK is 'x'"),
        ({"RANK": "0", "WORLD_SIZE": "2", "LOCAL_SIZE": "all"}, "LOCAL_SIZE is 'all'"),
        ({**SRUN, "SLURM_STEP_NODELIST": ""}, "SLURM_STEP_NODELIST is '', so the ranks have nowhere to meet; .*srun"),
        ({**SRUN, "SLURM_PROCID": "1"}, "task 1 of node 1 the rank 1, so .*do not follow.*--distribution=block"),
        ({**SRUN, "SLURM_LOCALID": "x"}, "SLURM_LOCALID is 'x'"),
        ({"OMPI_COMM_WORLD_SIZE": "4"}, "OMPI_COMM_WORLD_SIZE is 4 but RANK is not set, so every process would train"),
        (
            {"RANK": "5", "WORLD_SIZE": "8", "LOCAL_RANK": "5", "LOCAL_WORLD_SIZE": "2"},
            r"LOCAL_RANK=5 is outside a node of LOCAL_WORLD_SIZE=2 processes.*start the job with torchrun",
        ),
    ],
)
def test_variables_that_do_not_fit_are_refused_by_name(environment, words):
    with pytest.raises(UserError, match=words):
        world_from(environment)


def test_shares_cover_everything_exactly_once_and_evenly():
    cases = random.Random(0)
    for _ in range(200):
        size, count = cases.randint(1, 17), cases.randint(0, 60)
        shares = [list(World(rank=rank, size=size).share(count)) for rank in range(size)]
        assert sorted(number for share in shares for number in share) == list(range(count))
        assert max(map(len, shares)) - min(map(len, shares)) <= 1


def test_a_task_of_srun_is_a_rank_and_meets_the_others_on_the_first_node():
    assert world_from(SRUN) == World(rank=3, size=5, local_rank=1, local_size=2)
    last = {**SRUN, "SLURM_PROCID": "4", "SLURM_LOCALID": "0", "SLURM_NODEID": "2"}
    assert world_from(last) == World(rank=4, size=5, local_rank=0, local_size=1)
    places = {(launched(task)["MASTER_ADDR"], launched(task)["MASTER_PORT"]) for task in (SRUN, last)}
    assert len(places) == 1 and places.pop()[0] == "gpu07"
    assert launched({**SRUN, "MASTER_PORT": "29500"})["MASTER_PORT"] == "29500", "what the user sets stands"
    assert launched({**SRUN, "SLURM_JOB_ID": "4712"})["MASTER_PORT"] != launched(SRUN)["MASTER_PORT"]
    assert 12000 <= int(launched({**SRUN, "SLURM_JOB_ID": "4294967294"})["MASTER_PORT"]) < 32000


def test_a_batch_script_and_a_single_task_are_no_ranks():
    assert launched({"SLURM_NTASKS": "8", "SLURM_PROCID": "0", "SLURM_JOB_ID": "1"}) == {}
    assert launched({**SRUN, "SLURM_STEP_NUM_TASKS": "1"}) == {}


def test_torchrun_in_a_task_of_srun_is_what_counts():
    inside = {**SRUN, "RANK": "9", "WORLD_SIZE": "16", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "8"}
    assert world_from(inside) == World(rank=9, size=16, local_rank=1, local_size=8)


@pytest.mark.parametrize(
    ("nodes", "first"),
    [
        ("node1", "node1"), ("a,b", "a"), ("gpu[3,5]", "gpu3"), ("gpu[001-128]", "gpu001"),
        ("r[2-3]n[10,12],login", "r2n10"), ("r7-gpu[1-2].lab", "r7-gpu1.lab"),
    ],
)  # fmt: skip
def test_the_first_node_of_a_list(nodes, first):
    assert first_node(nodes) == first
