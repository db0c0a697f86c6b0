"""Whose folder it is: found out by files, whether nodes share their disk or not."""

from pathlib import Path

import pytest

from refiner_ds.checkpoint.place import Place, find_place
from refiner_ds.world import World
from tests.checkpoint.made import as_ranks


def places(folders: list[Path], ranks_per_node: int) -> list[Place]:
    """What each rank finds, where node n writes into folders[n]."""
    for folder in folders:
        folder.mkdir(exist_ok=True)
    size = len(folders) * ranks_per_node

    def act(rank, gathered):
        node, local_rank = divmod(rank, ranks_per_node)
        return find_place(folders[node], World(rank, size, local_rank, ranks_per_node), gathered)

    return as_ranks(size, act)


@pytest.mark.parametrize(("nodes", "ranks"), [(1, 1), (1, 3), (3, 1), (2, 2)])
def test_one_folder_that_all_nodes_see_is_one_place(tmp_path, nodes, ranks):
    found = places([tmp_path] * nodes, ranks)
    assert {place.ranks for place in found} == {tuple(range(nodes * ranks))}
    assert [place.leads for place in found] == [True] + [False] * (nodes * ranks - 1)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("nodes", "ranks"), [(2, 1), (2, 2), (3, 2)])
def test_folders_of_their_own_are_a_place_each_with_a_leader_each(tmp_path, nodes, ranks):
    found = places([tmp_path / str(node) for node in range(nodes)], ranks)
    for rank, place in enumerate(found):
        first = rank // ranks * ranks
        assert place.ranks == tuple(range(first, first + ranks)) and place.leads == (rank == first)


def test_two_nodes_of_three_may_share(tmp_path):
    found = places([tmp_path / "own", tmp_path / "shared", tmp_path / "shared"], 2)
    assert [place.ranks for place in found] == [(0, 1)] * 2 + [(2, 3, 4, 5)] * 4


@pytest.mark.parametrize("ranks", [(0,), (0, 1), (4, 5, 6)])
def test_the_ranks_of_a_place_read_each_file_once(ranks):
    names = [f"file{number}" for number in range(7)]
    shares = [Place(rank, ranks).share(names[::-1]) for rank in ranks]
    assert sorted(name for share in shares for name in share) == names
    assert max(map(len, shares)) - min(map(len, shares)) <= 1
