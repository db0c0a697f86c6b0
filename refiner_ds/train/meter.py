"""The meter: collects what steps leave on the device and reads it once per log interval, averaged over the ranks."""

import platform
import time
from dataclasses import dataclass, field

import torch
from torch import Tensor

from refiner_ds.refiners.protocol import scalars
from refiner_ds.train.engine import Engine
from refiner_ds.train.figures import RankFigures, together
from refiner_ds.train.high_water import high_water
from refiner_ds.train.meeting import gathered
from refiner_ds.train.peak import peak_of
from refiner_ds.train.step import StepResult
from refiner_ds.train.system import Sampler
from refiner_ds.train.waiting import Waiting
from refiner_ds.train.work import Work


@dataclass
class Meter:
    """Figures of the steps since the last reading, and of what the ranks did for them.

    Those of the ranks stand in the line of the last step that is read; train/figures.py says what they are.
    """

    engine: Engine
    pairs_per_step: int
    waiting: Waiting
    work: Work
    sampler: Sampler
    slowest: str = ""
    """At the last reading, the slowest rank in words, empty unless it stood out."""
    bad_samples: list[str] = field(default_factory=list)
    """Every broken sample that any rank has met, once."""
    _results: list[tuple[int, float, StepResult]] = field(default_factory=list)
    _since: float = 0.0

    def __post_init__(self) -> None:
        self._peak = peak_of(self.engine.device, self.engine.dtype)
        self._since = time.perf_counter()

    def add(self, step: int, learning_rate: float, result: StepResult) -> None:
        """Notes the result of update `step` = 1, 2, ...; nothing is read from the device."""
        self._results.append((step, learning_rate, result))

    def pause(self) -> "Pause":
        """A context whose time does not count as training: validation, checkpoints."""
        return Pause(self)

    def read(self) -> list[tuple[int, dict[str, float]]]:
        """(step, metrics) of every step since the last reading, metrics named train/.... All ranks must call."""
        if not self._results:
            return []
        names = sorted(scalars(self._results[0][2].losses))
        groups = sorted(set(self._results[0][2].losses) - set(names))
        rows = [
            torch.stack([*(r.losses[n] for n in names), r.gradient_norm, r.gradient_norm.new_tensor(len(r.replaced))])
            for _, _, r in self._results
        ]
        table = self.engine.mean_over_ranks(torch.stack(rows)).tolist()
        by_group = {name: self._means_of_groups([r.losses[name] for _, _, r in self._results]) for name in groups}
        if any(row[-1] for row in table):  # on all ranks or on none
            self._note([sentence for _, _, r in self._results for sentence in r.replaced])
        seconds = time.perf_counter() - self._since
        rate = len(rows) * self.pairs_per_step / seconds
        lines = []
        for number, ((step, learning_rate, _), row) in enumerate(zip(self._results, table, strict=True)):
            metrics = {f"train/{name}": value for name, value in zip([*names, "grad_norm"], row[:-1], strict=True)}
            metrics |= {"train/lr": learning_rate, "train/pairs_per_s": rate}
            for name in groups:
                metrics |= {f"train/{name}{group}": mean for group, mean in by_group[name][number].items()}
            lines.append((step, {**metrics, "train/images_seen": step * self.pairs_per_step}))
        lines[-1][1]["train/bad_samples"] = len(self.bad_samples)
        lines[-1][1]["train/skipped_steps"] = self.engine.skipped_steps
        lines[-1][1]["train/loss_scale"] = self.engine.loss_scale
        figures, self.slowest = together(gathered(self._own(seconds)))
        lines[-1][1].update(figures)
        self._results, self._since = [], time.perf_counter()
        return lines

    def _means_of_groups(self, sums: list[Tensor]) -> list[dict[int, float]]:
        """Of each step the mean by group, from 1 on, without those that had no sample on any rank. All ranks call."""
        table = self.engine.mean_over_ranks(torch.stack(sums)).tolist()
        return [{number: total / count for number, (total, count) in enumerate(step, 1) if count} for step in table]

    def _own(self, seconds: float) -> RankFigures:
        """Figures of this rank over the time since the last reading; the device has caught up."""
        flops, own_seconds = self.work.take()
        wait = self.waiting.take() / seconds
        memory = high_water(self.engine.device)
        return RankFigures(platform.node(), flops / seconds, self._peak, wait, memory, own_seconds, self.sampler.take())

    def _note(self, replaced: list[str]) -> None:
        """Adds what is new among the broken samples of all ranks. All ranks must call."""
        found = [sentence for rank in gathered(replaced) for sentence in rank]
        self.bad_samples += [sentence for sentence in dict.fromkeys(found) if sentence not in self.bad_samples]


@dataclass
class Pause:
    """Takes the time between entering and leaving off the meter's clock."""

    meter: Meter
    _entered: float = 0.0

    def __enter__(self) -> None:
        self._entered = time.perf_counter()

    def __exit__(self, *_: object) -> None:
        self.meter._since += time.perf_counter() - self._entered
