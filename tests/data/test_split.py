"""What is held out: properties over many datasets, and the words for what cannot be held out."""

import random
from collections import Counter
from fractions import Fraction
from pathlib import Path

import pytest

from refiner_ds.data.manifest import Sample
from refiner_ds.data.split import Val, leak_of, parse_val, split_of
from refiner_ds.errors import UserError


def sample(number: int, scene: str | None = None, split: str | None = None, dataset: int = 0) -> Sample:
    return Sample({"render": Path(f"{number}.png")}, {"render": f"{number}.png"}, scene, split, dataset)


def samples_of(rng: random.Random) -> list[Sample]:
    """Two to forty scenes of very different size, some of them in two datasets; frames in the order of the list."""
    sizes = [rng.choice([1, 2, 5, 30, rng.randint(1, 100)]) for _ in range(rng.randint(2, 40))]
    frames = [f"drive_{scene}" for scene, size in enumerate(sizes) for _ in range(size)]
    if rng.random() < 0.3:
        rng.shuffle(frames)
    return [sample(number, scene, dataset=rng.randint(0, 1)) for number, scene in enumerate(frames)]


def torn_scenes(samples: list[Sample], splits: list[str]) -> int:
    sides = {(s.scene, split) for s, split in zip(samples, splits, strict=True)}
    return len(sides) - len({s.scene for s in samples})


@pytest.mark.parametrize(
    ("text", "amount"),
    [("10", 10), ("0", 0), (" 7 ", 7), ("5%", Fraction(1, 20)), ("0.05", Fraction(1, 20)), (".5", Fraction(1, 2))],
)
def test_a_count_or_a_share(text, amount):
    assert parse_val(text, "random") == Val(amount, "random")
    assert type(parse_val(text).amount) is type(amount)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("ten", "--val ten is no number of samples to hold out; give a count such as 10, or a share"),
        ("", "is no number of samples"),
        ("%", "is no number of samples"),
        ("nan", "is no number of samples"),
        ("1e999999999", "is no number of samples"),
        ("-3", "--val -3 is no number of samples to hold out; give 0 to hold out none, or more"),
        ("-5%", "give 0 to hold out none, or more"),
        ("0.0", "--val 0.0 is a share that is not between 0 and 1"),
        ("0%", "not between 0 and 1"),
        ("1.0", "not between 0 and 1"),
        ("100%", "not between 0 and 1"),
        ("250%", "not between 0 and 1"),
    ],
)
def test_what_is_neither_is_refused_in_words(text, words):
    with pytest.raises(UserError, match=words):
        parse_val(text)


def test_a_share_is_exact_and_rounded_up():
    for total in range(1, 3000):
        assert parse_val("5%").count_of(total) == parse_val("0.05").count_of(total) == -(-total // 20)


def test_by_last_is_the_rule_of_the_baseline():
    rng = random.Random(0)
    for _ in range(200):
        samples = samples_of(rng)
        count = rng.randrange(len(samples))
        expected = ["train"] * (len(samples) - count) + ["val"] * count
        assert split_of(samples, Val(count, "last"), rng.randrange(99)) == expected
    assert split_of(samples[:1] * 30, None, 0) == ["train"] * 20 + ["val"] * 10


def test_by_random_depends_on_seed_and_number_alone_and_more_holds_what_less_holds():
    rng = random.Random(0)
    for _ in range(200):
        samples, seed = samples_of(rng), rng.randrange(99)
        few, many = sorted(rng.sample(range(len(samples) + 1), 2))
        others = [sample(number + 1000) for number in range(len(samples))]
        held = []
        for count in (few, min(many, len(samples) - 1)):
            splits = split_of(samples, Val(count, "random"), seed)
            assert splits == split_of(others, Val(count, "random"), seed)
            assert splits.count("val") == count
            held.append({i for i, split in enumerate(splits) if split == "val"})
        assert held[0] <= held[1]
    draws = {tuple(split_of(others, Val(1, "random"), seed)) for seed in range(50)}
    assert len(others) == 1 or len(draws) > 1


def test_by_random_is_stable_for_good():
    """The draw of a packed dataset must come back in years: another numpy or Python must not change it."""
    splits = split_of([sample(number) for number in range(20)], Val(5, "random"), seed=7)
    assert [i for i, split in enumerate(splits) if split == "val"] == [1, 5, 10, 12, 13]


def test_by_scene_is_stable_for_good():
    samples = [sample(number, f"drive_{number // 4}") for number in range(40)]
    splits = split_of(samples, Val(5, "scene"), seed=7)
    assert sorted({s.scene for s, split in zip(samples, splits, strict=True) if split == "val"}) == [
        "drive_8",
        "drive_9",
    ]


def test_by_scene_no_scene_is_on_both_sides_and_enough_is_held_out_but_never_all():
    rng = random.Random(0)
    refused = 0
    for _ in range(500):
        samples, seed = samples_of(rng), rng.randrange(99)
        count = rng.randint(1, len(samples) - 1)
        try:
            splits = split_of(samples, Val(count, "scene"), seed)
        except UserError as error:
            refused += 1
            most = int(str(error).rpartition("at most ")[2].rstrip("."))
            assert 0 < most < count  # what the sentence recommends can be done
            splits = split_of(samples, Val(most, "scene"), seed)
            assert splits.count("val") == most
        else:
            held = Counter(s.scene for s, split in zip(samples, splits, strict=True) if split == "val")
            assert sum(held.values()) >= count
            assert any(sum(held.values()) - size < count for size in held.values())  # not a scene too many
        assert torn_scenes(samples, splits) == 0 and leak_of(samples, splits) is None
        assert {"train", "val"} == set(splits)
    assert 0 < refused < 250


def test_by_scene_depends_on_seed_and_names_alone():
    rng = random.Random(0)
    for _ in range(100):
        samples, seed = samples_of(rng), rng.randrange(99)
        shuffled = rng.sample(samples, len(samples))
        both = []
        for order in (samples, shuffled):
            splits = split_of(order, Val(1, "scene"), seed)
            both.append({s.name for s, split in zip(order, splits, strict=True) if split == "val"})
        assert both[0] == both[1]
    drawn = {tuple(split_of(samples, Val(1, "scene"), seed)) for seed in range(50)}
    assert len(drawn) > 1


def test_a_scene_that_is_added_later_only_takes_places_and_shuffles_none():
    rng = random.Random(0)
    for _ in range(100):
        samples, seed = [sample(i, f"drive_{i // 5}") for i in range(100)], rng.randrange(9999)
        more = [*samples, *(sample(100 + i, f"new_{rng.randrange(9999)}") for i in range(3))]
        before = split_of(samples, Val(25, "scene"), seed)
        after = split_of(more, Val(25, "scene"), seed)[:100]
        assert all(old == "val" for old, new in zip(before, after, strict=True) if new == "val")


def test_scenes_of_one_name_are_one_over_all_datasets():
    samples = [sample(i, f"drive_{i % 4}", dataset=i // 4) for i in range(12)]
    for seed in range(20):
        assert torn_scenes(samples, split_of(samples, Val(2, "scene"), seed)) == 0


def test_what_a_manifest_divides_stays():
    given = [sample(i, f"drive_{i}", split) for i, split in enumerate(["train", "val", "train"])]
    assert split_of(given, None, 0) == ["train", "val", "train"]
    with pytest.raises(UserError, match=r"--val 10 divides samples that their manifest has divided .*leave --val out"):
        split_of(given, Val(10), 0)
    with pytest.raises(UserError, match="all 2 samples are held out by their manifests"):
        split_of([sample(0, split="val"), sample(1, split="val")], None, 0)


def test_the_others_of_a_mixed_dataset_are_divided_and_follow_their_scenes():
    rng = random.Random(0)
    for by in ("last", "random", "scene"):
        for _ in range(200):
            side = {f"drive_{i}": rng.choice(["train", "val"]) for i in range(10)}
            given = [sample(i, scene := f"drive_{rng.randrange(10)}", side[scene]) for i in range(20)]
            free = [sample(20 + i, f"drive_{rng.randrange(20)}", dataset=1) for i in range(100)]
            samples, count = rng.sample(given + free, 120), rng.randint(1, 10)
            try:
                splits = split_of(samples, Val(count, by), 3)
            except UserError as error:
                assert by == "scene" and "cannot hold out" in str(error)
                continue
            assert all(split == (s.split or split) for s, split in zip(samples, splits, strict=True))
            held = sum(split == "val" and s.split is None for s, split in zip(samples, splits, strict=True))
            assert held >= count if by == "scene" else held == count
            assert by != "scene" or torn_scenes(samples, splits) == 0


@pytest.mark.parametrize("by", ["last", "random", "scene"])
def test_nothing_left_to_train_on_is_refused(by):
    samples = [sample(i, f"drive_{i}") for i in range(4)]
    for val in (Val(4, by), Val(99, by), Val(Fraction(9, 10), by)):
        with pytest.raises(UserError, match=rf"--val {val} of 4 samples leaves no training sample; hold out fewer"):
            split_of(samples, val, 0)
    assert split_of(samples, Val(0, by), 0) == ["train"] * 4
    with pytest.raises(UserError, match=r"--val 0.5 of 1 sample leaves no training sample; list more"):
        split_of(samples[:1], Val(Fraction(1, 2), by), 0)


def test_scenes_that_cannot_be_held_out_are_refused_in_words():
    with pytest.raises(UserError, match=r"--split scene: all 5 samples are of scene a, .*pack more scenes"):
        split_of([sample(i, "a") for i in range(5)], Val(1, "scene"), 0)
    half_known = [sample(i, "a" if i < 3 else None) for i in range(5)]
    words = r"2 of 5 samples have no scene \(3.png is the first\).*by --scene_pattern"
    with pytest.raises(UserError, match=words):
        split_of(half_known, Val(1, "scene"), 0)
    words = r"--val 4 --split scene: 2 scenes of 6 samples, drawn whole with seed 0, cannot hold out 4 .* at most 3\."
    with pytest.raises(UserError, match=words):
        split_of([sample(i, "ab"[i // 3]) for i in range(6)], Val(4, "scene"), 0)


def test_neighbours_on_both_sides_are_warned_of():
    samples = [sample(i, f"drive_{i // 10}") for i in range(40)]
    splits = split_of(samples, Val(5), 0)
    assert leak_of(samples, splits) == (
        "1 of 4 scenes are on both sides of the split (drive_3), so validation sees neighbours of what was trained on "
        "and flatters the refiner; hold out whole scenes with --split scene."
    )
    assert leak_of(samples, split_of(samples, Val(10), 0)) is None
    assert leak_of([sample(i) for i in range(40)], splits) is None
    given = [sample(i, "a", split) for i, split in enumerate(["train", "val"])]
    assert str(leak_of(given, ["train", "val"])).endswith("; divide the manifest by scene.")
    many = [sample(i, f"drive_{i // 2}") for i in range(10)]
    assert "5 of 5 scenes are on both sides of the split (drive_0, drive_1, drive_2, ...)" in str(
        leak_of(many, ["train", "val"] * 5)
    )
