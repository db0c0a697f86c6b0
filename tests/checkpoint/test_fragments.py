"""Cuts of parameters over ranks: what any number of ranks holds can be read as any other number of ranks needs it."""

import itertools
import random

import pytest

from refiner_ds.checkpoint.fragments import Fragment, common, covering

SEEDS = range(100)


def fragments_of(lengths: dict[str, int], bounds: list[int]) -> list[list[Fragment]]:
    """By rank: what it holds of parameters that lie one behind the other, cut at the bounds."""
    cut = []
    for low, high in itertools.pairwise(bounds):
        place, held = 0, []
        for name, length in lengths.items():
            start, end = max(low, place), min(high, place + length)
            if start < end:
                held.append(Fragment(name, start - place, end - start))
            place += length
        cut.append(held)
    return cut


def random_cut(choose: random.Random, lengths: dict[str, int]) -> list[list[Fragment]]:
    """Over 1 to 7 ranks, some of which may hold nothing."""
    total = sum(lengths.values())
    inner = sorted(choose.randint(0, total) for _ in range(choose.randint(0, 6)))
    return fragments_of(lengths, [0, *inner, total])


def random_lengths(choose: random.Random) -> dict[str, int]:
    return {f"layer{number}": choose.randint(1, 40) for number in range(choose.randint(1, 6))}


def value(name: str, place: int) -> tuple[str, int]:
    """Stands for the value itself: no other one is equal to it."""
    return name, place


def values_in(fragment: Fragment) -> list[tuple[str, int]]:
    return [value(fragment.name, place) for place in range(fragment.start, fragment.start + fragment.count)]


def read(wanted: Fragment, pieces: list[Fragment]) -> list[tuple[str, int]]:
    """Fills `wanted` as a checkpoint is read: each piece knows its own values from its own start on."""
    out: list[tuple[str, int]] = []
    for number, part in covering(wanted, pieces):
        first = part.start - pieces[number].start
        out += values_in(pieces[number])[first : first + part.count]
    return out


def test_any_cut_read_from_any_other_gives_the_same_values():
    for choose in map(random.Random, SEEDS):
        lengths = random_lengths(choose)
        written, needed = (random_cut(choose, lengths) for _ in range(2))
        pieces = [fragment for rank in written for fragment in rank]
        choose.shuffle(pieces)
        for wanted in (fragment for rank in needed for fragment in rank):
            assert read(wanted, pieces) == values_in(wanted)


def test_pieces_that_overlap_are_read_once():
    for choose in map(random.Random, SEEDS):
        lengths = random_lengths(choose)
        pieces = [fragment for _ in range(3) for rank in random_cut(choose, lengths) for fragment in rank]
        choose.shuffle(pieces)
        for name, length in lengths.items():
            start = choose.randrange(length)
            wanted = Fragment(name, start, choose.randint(1, length - start))
            assert read(wanted, pieces) == values_in(wanted)


def test_a_missing_piece_is_told_by_its_first_value_and_only_where_it_is_needed():
    for choose in map(random.Random, SEEDS):
        lengths = random_lengths(choose)
        pieces = [fragment for rank in random_cut(choose, lengths) for fragment in rank]
        lost = pieces.pop(choose.randrange(len(pieces)))
        for wanted in (Fragment(name, 0, length) for name, length in lengths.items()):
            if wanted.name != lost.name:
                assert read(wanted, pieces) == values_in(wanted)
                continue
            with pytest.raises(LookupError, match=f"^value {lost.start} of {lost.name}$"):
                read(wanted, pieces)


def test_what_two_fragments_share_is_what_lies_in_both():
    for choose in map(random.Random, SEEDS):
        one, other = (Fragment("layer", choose.randint(0, 9), choose.randint(0, 9)) for _ in range(2))
        shared = sorted({*values_in(one)} & {*values_in(other)})
        found = common(one, other)
        assert found == common(other, one)
        assert (values_in(found) if found else []) == shared
        assert common(one, Fragment("other", one.start, one.count)) is None
