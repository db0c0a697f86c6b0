"""What packing will write, as properties over many inputs."""

import io
import random
import tarfile
from pathlib import Path

import numpy as np
import pytest

from refiner_ds.data.manifest import VIEWS, Sample
from refiner_ds.data.packing.check import Checked
from refiner_ds.data.packing.plan import arranged, cut, make_plan
from refiner_ds.data.packing.tar import END, header_of, padding_of, place_members

SEEDS = pytest.mark.parametrize("seed", range(60))


def splits_of(choose: random.Random, count: int) -> list[str]:
    return choose.choices(["train", "val"], [choose.random() + 0.01, choose.random()], k=count)


def checked_of(choose: random.Random, count: int, lost: float) -> list[Checked | None]:
    """Samples with pictures of 1 to 3000 bytes, a share `lost` of which cannot be used."""
    sizes = [tuple(choose.randint(1, 3000) for _ in VIEWS) for _ in range(count)]
    return [None if choose.random() < lost else Checked(4, 3, size, (1, 2, 3), (0, 1, 2)) for size in sizes]


def samples_of(count: int) -> list[Sample]:
    return [Sample({v: Path(v) for v in VIEWS}, {v: f"{v}{i}" for v in VIEWS}) for i in range(count)]


@SEEDS
def test_a_shard_ends_with_the_sample_that_fills_it(seed):
    choose = random.Random(seed)
    sizes = [choose.randint(1, 50) for _ in range(choose.randint(0, 40))]
    shard_size = choose.randint(1, 120)
    groups = cut(sizes, shard_size)
    assert [i for first, last in groups for i in range(first, last)] == list(range(len(sizes)))
    filled = [sizes[first:last] for first, last in groups]
    assert all(sum(part[:-1]) < shard_size for part in filled)
    assert all(sum(part) >= shard_size for part in filled[:-1])


@SEEDS
@pytest.mark.parametrize("order", ["shuffled", "list"])
def test_every_sample_has_its_place_in_its_split(seed, order):
    choose = random.Random(seed)
    splits = splits_of(choose, choose.randint(0, 60))
    found = arranged(splits, order, seed)
    for split, numbers in found.items():
        expected = [i for i, name in enumerate(splits) if name == split]
        assert sorted(numbers.tolist()) == expected
        if (split, order) != ("train", "shuffled"):
            assert numbers.tolist() == expected
    assert np.array_equal(arranged(splits, order, seed)["train"], found["train"])


def test_a_shuffled_order_takes_neighbours_apart():
    numbers = arranged(["train"] * 5000, "shuffled", 0)["train"]
    assert np.mean(np.abs(np.diff(numbers)) == 1) < 0.002
    assert np.median(np.abs(np.diff(numbers))) > 1000


@SEEDS
def test_offsets_are_those_of_a_tar(seed):
    choose = random.Random(seed)
    count = choose.randint(1, 12)
    checked, splits, samples = checked_of(choose, count, lost=0.2), splits_of(choose, count), samples_of(count)
    shard_size = choose.randint(1, 9000)
    plan = make_plan(samples, checked, splits, ["a"], "shuffled", seed, shard_size)
    assert sorted(plan.numbers) == [i for i, one in enumerate(checked) if one]
    for shard in plan.shards:
        content, places = b"", []
        for row in range(shard.first, shard.first + shard.samples):
            key = plan.records["key"][row].decode()
            assert int(key) == plan.numbers[row] and splits[int(key)] == shard.split
            for view, size, kind in zip(VIEWS, checked[int(key)].sizes, ("png", "jpg", "webp"), strict=True):
                content += header_of(f"{key}.{view}.{kind}", size) + bytes(size) + padding_of(size)
                places.append((f"{key}.{view}.{kind}", size))
            card = plan.cards[row]
            content += header_of(f"{key}.json", len(card)) + card + padding_of(len(card))
        content += END
        part = slice(shard.first, shard.first + shard.samples)
        assert place_members(plan.records[part], [len(card) for card in plan.cards[part]]) == len(content)
        with tarfile.open(fileobj=io.BytesIO(content)) as tar:
            members = [member for member in tar if not member.name.endswith(".json")]
        assert [(member.name, member.size) for member in members] == places
        offsets = plan.records["offset"][part].ravel()
        assert [member.offset_data for member in members] == offsets.tolist()


@SEEDS
def test_a_sample_that_is_left_out_moves_no_other_one(seed):
    choose = random.Random(seed)
    count = choose.randint(2, 9)
    lost, checked = choose.randrange(count), checked_of(choose, count, lost=0)
    samples, splits = samples_of(count), splits_of(choose, count)
    without = [None if i == lost else one for i, one in enumerate(checked)]
    whole, rest = (make_plan(samples, found, splits, ["a"], "shuffled", 3, 1) for found in (checked, without))
    assert [n for n in whole.numbers if n != lost] == rest.numbers.tolist()
    assert whole.digest != rest.digest
