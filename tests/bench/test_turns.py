"""What benches in turns rest on: who goes when, what is counted, and that one way has gone before the next comes."""

import torch

from refiner_ds.bench import turns
from refiner_ds.bench.turns import Contender, Way, duel, race

CPU = torch.device("cpu")


class Product(Way):
    """A way whose step is one product of 8x8 matrices; it notes in `calls` what is done with it."""

    def __init__(self, name: str, calls: list[str]) -> None:
        self._name, self._calls = name, calls
        calls.append(f"make {name}")

    def step(self) -> torch.Tensor:
        self._calls.append(f"step {self._name}")
        return torch.mm(torch.ones(8, 8), torch.ones(8, 8))[0, 0]

    def close(self) -> None:
        self._calls.append(f"close {self._name}")


def test_ways_take_turns_and_each_has_gone_before_the_next_is_made(monkeypatch):
    monkeypatch.setattr(turns, "SECONDS", 0.001)
    monkeypatch.setitem(turns.SIDES, "cpu", 64)
    calls: list[str] = []
    made = [Contender(name, torch.float32, lambda name=name: Product(name, calls)) for name in ("a", "b")]
    rows = race(made, 3, 4, CPU, lambda *_: None)
    assert [call[-1] for call in calls if call.startswith("make")] == ["a", "b", "b", "a", "a", "b"]
    assert [call.split()[0] for call in calls if not call.startswith("step")] == ["make", "close"] * 6
    for row in rows:
        assert row.flops_each == 2 * 8**3 / 4 and [turn.first_value for turn in row.turns] == [8.0] * 3
        for turn in row.turns:
            assert turn.count >= 4 * turns.LEAST_STEPS and turn.count % 4 == 0
            assert min(turn.seconds, turn.peak_mb, turn.product_flops) > 0


def test_in_a_duel_steps_take_turns_and_the_first_of_a_pair_changes(monkeypatch):
    monkeypatch.setattr(turns, "STEPS_OF_DUEL", 2)
    clock = iter(range(10**6))
    monkeypatch.setattr(turns.time, "perf_counter", lambda: float(next(clock)))
    calls: list[str] = []
    one, other = (Contender(name, torch.float32, lambda name=name: Product(name, calls)) for name in ("a", "b"))
    assert duel(one, other, 2, CPU) == [1.0, 1.0]
    assert [call[-1] for call in calls if call.startswith("step")] == [*"aabb", *"abba", *"abba"]
    assert [call for call in calls if not call.startswith("step")] == ["make a", "make b", "close a", "close b"]
