"""Repairs on several ranks: each makes and tells its share, on a device of its own, and the bytes are those of one."""

import os

import pytest
import torch

from refiner_ds.errors import UserError
from refiner_ds.verbs.device import device_of, require_gpus
from refiner_ds.world import World
from tests.train.launch import deepspeed, free_port, start
from tests.verbs.listing import contents


def test_ranks_share_the_pictures_and_each_tells_its_own(repair, folders, tmp_path, monkeypatch):
    repair(tmp_path / "alone", "--device", "cpu", **folders)
    monkeypatch.setenv("WORLD_SIZE", "4")
    for rank, count in enumerate([1, 1, 1, 0]):
        monkeypatch.setenv("RANK", str(rank))
        monkeypatch.setenv("LOCAL_RANK", str(rank))
        told = f"rank {rank} of 4: {count} repaired in {tmp_path / 'out'}"
        assert repair(tmp_path / "out", "--device", "cpu", **folders) == (0, told)
    assert contents(tmp_path / "out") == contents(tmp_path / "alone")
    (folders["cond"] / "a/deep/001.png").write_text("no picture")  # rank 1's; rank 0 has no word about it
    code, line = repair(tmp_path / "other", "--device", "cpu", **folders)
    assert code == 0, "rank 3 has no picture, and no rank looks at another's"
    monkeypatch.setenv("RANK", "1")
    code, line = repair(tmp_path / "other", "--device", "cpu", **folders)
    assert code == 2 and line.startswith(f"refiner-ds repair: rank 1 of 4: picture {folders['cond']}/a/deep/001.png is")


@pytest.mark.slow
@pytest.mark.parametrize("launcher", ["torchrun", pytest.param("deepspeed", marks=pytest.mark.long)])
def test_two_ranks_of_a_launcher_make_the_same_bytes_as_one(repair, model, folders, tmp_path, launcher):
    started = {
        "torchrun": ["-m", "torch.distributed.run", "--nproc-per-node", "2", "--master-port", free_port(), "-m"],
        "deepspeed": deepspeed("--module"),
    }[launcher]
    flags = {
        "--model": model,
        "--output": tmp_path / "two",
        "--device": "cpu",
        **{f"--{view}": path for view, path in folders.items()},
    }
    done = start([*started, "refiner_ds", "repair"], flags)
    assert done.returncode == 0, done.stdout[-3000:]
    for line in ("rank 0 of 2: 2 repaired in ", "rank 1 of 2: 1 repaired in "):
        assert f"{line}{tmp_path / 'two'}" in done.stdout
    flags["--output"] = tmp_path / "one"
    assert start(["-m", "refiner_ds", "repair"], flags).returncode == 0
    assert contents(tmp_path / "two") == contents(tmp_path / "one")


def test_cores_are_shared_among_the_ranks_of_a_node_unless_the_user_has_said_how_many(monkeypatch):
    before = torch.get_num_threads()
    try:
        device_of("cpu", World(0, 2, 0, 2))
        assert torch.get_num_threads() == before, "OMP_NUM_THREADS is set for the tests"
        monkeypatch.delenv("OMP_NUM_THREADS")
        assert device_of("cpu", World(0, 2, 0, 2)) == torch.device("cpu")
        assert torch.get_num_threads() == max(1, len(os.sched_getaffinity(0)) // 2)
    finally:
        torch.set_num_threads(before)


def test_a_gpu_is_for_one_rank_and_asked_for_where_there_is_one():
    require_gpus(2, World(3, 4, 1, 2))
    with pytest.raises(UserError, match="this node has 2 GPUs and is given 3 ranks, but a rank needs one of its own; "):
        require_gpus(2, World(0, 3, 0, 3))
    if not torch.cuda.is_available():
        with pytest.raises(UserError, match="--device cuda, but torch finds no GPU here; take --device cpu or auto"):
            device_of("cuda", World())
