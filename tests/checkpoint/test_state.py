"""What was saved by any number of ranks is read as any other number of ranks needs it, and as whole tensors."""

import random
import re

import pytest
import torch
from safetensors import safe_open

from refiner_ds.checkpoint.fragments import Fragment
from refiner_ds.checkpoint.snapshot import AVERAGE, MASTER, file_of, write_snapshot
from refiner_ds.checkpoint.state import SavedState
from refiner_ds.errors import UserError
from tests.checkpoint.made import KINDS, SHAPES, cut_at, evenly, values_of

TOTAL = sum(value.numel() for value in values_of(0)[MASTER].values())


def written(folder, snapshots):
    for rank, snapshot in enumerate(snapshots):
        write_snapshot(folder / file_of(rank), snapshot)
    return SavedState(folder)


@pytest.mark.parametrize("ranks", range(1, 8))
def test_whole_tensors_are_those_that_were_cut(tmp_path, ranks):
    values = values_of(3)
    saved = written(tmp_path, evenly(values, ranks))
    assert saved.shapes == SHAPES and saved.kinds == {*KINDS}
    for kind in KINDS:
        for name, value in values[kind].items():
            assert torch.equal(saved.whole(name, kind), value)


@pytest.mark.parametrize("seed", range(20))
def test_every_shard_of_another_cut_is_filled_to_the_bit(tmp_path, seed):
    choose = random.Random(seed)
    cuts = [[0, *sorted(choose.randint(0, TOTAL) for _ in range(choose.randint(0, 6))), TOTAL] for _ in range(2)]
    values = values_of(seed)
    saved = written(tmp_path, cut_at(values, cuts[0]))
    for wanted in cut_at(values, cuts[1]):
        for kind, (shard,) in wanted.shards.items():
            for placed in wanted.cut[0]:
                out = torch.full((placed.fragment.count,), float("nan"))
                saved.fill(kind, placed.fragment, out)
                assert torch.equal(out, shard.narrow(0, placed.offset, placed.fragment.count))


def test_counters_and_what_is_loose_come_back_and_a_new_rank_takes_those_of_the_first(tmp_path):
    saved = written(tmp_path, evenly(values_of(0), 2))
    assert saved.counters == {"global_steps": 7, "optimizer": {}, "scaler": {}}
    assert saved.loose(1)["0.blocks"].tolist() == [1, 2, 3, 4]
    assert saved.loose(5)["0.blocks"].tolist() == [0, 1, 2, 3]
    assert saved.loose(0)["0.step"].item() == 7 and saved.loose(0)["0.step"].shape == ()


def test_an_average_is_told_where_there_is_one(tmp_path):
    (tmp_path / "with").mkdir()
    assert written(tmp_path / "with", evenly(values_of(0, kinds=(MASTER, AVERAGE)), 2)).has_average
    assert not written(tmp_path, evenly(values_of(0), 2)).has_average


def test_a_rank_that_has_no_file_here_is_told_with_the_value_that_lacks(tmp_path):
    snapshots = evenly(values_of(0), 3)
    saved = written(tmp_path, snapshots)
    (tmp_path / file_of(1)).unlink()
    saved = SavedState(tmp_path)
    lost = snapshots[1].cut[0][0].fragment
    with pytest.raises(UserError, match=f"lacks value {lost.start} of {re.escape(lost.name)} here: it was written by"):
        saved.fill(MASTER, Fragment(lost.name, 0, torch.Size(SHAPES[lost.name]).numel()), torch.empty(99))
    first = snapshots[0].cut[0][0].fragment
    saved.fill(MASTER, first, torch.empty(first.count))  # what is here can be read


def test_nothing_of_the_padding_is_written(tmp_path):
    written(tmp_path, evenly(values_of(0), 4))
    count = 0
    for path in tmp_path.iterdir():
        with safe_open(path, framework="pt") as file:
            values = [file.get_tensor(key) for key in file.keys() if "/" in key]  # noqa: SIM118 (it is no mapping)
        assert all(value.isfinite().all() for value in values)
        count += sum(value.numel() for value in values)
    assert count == TOTAL * len(KINDS)
