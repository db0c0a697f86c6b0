"""Figures of the ranks at a reading, and what they come to together."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

NOTABLE = 1.1
"""From this spread on, the slowest rank is named."""


@dataclass(frozen=True)
class RankFigures:
    """Of one rank since the last reading.

    Attributes:
        host: its name.
        flops: floating-point operations per second, as flops.py counts them.
        peak: what its device can do per second at most.
        wait: share of the time that it waited for data, 0..1.
        memory: bytes at most, since the run began.
        node: samples of its node, by name; the first rank of each has those of all but GPUs.
        own_seconds: what its own part of a micro-batch takes, None where none was timed.
    """

    host: str
    flops: float
    peak: float
    wait: float
    memory: int
    own_seconds: float | None
    node: Mapping[str, float] = field(default_factory=dict)


def together(ranks: Sequence[RankFigures]) -> tuple[dict[str, float], str]:
    """Metrics of all ranks, and the slowest one in words, empty unless it stands out.

    - train/tflops: 10^12 floating-point operations per second and device, mean over the ranks;
    - train/mfu: share of the device's peak that this is (model FLOPs utilization: PaLM, Chowdhery et al. 2022, appendix
      B), mean over the ranks; 0..1 where the peak is a true one. Activations that are computed again do not count;
    - train/data_wait: share of the time that a rank waited for data, 0..1, mean over the ranks;
    - train/memory_gb: 10^9 bytes at most, of the rank with most;
    - system/HOST/...: samples of each node, see `Sampler.take`;
    - train/rank_spread: the slowest rank's own seconds over the mean, 1 and above; left out where a rank timed nothing.
    """
    metrics = {
        "train/tflops": _mean([rank.flops for rank in ranks]) / 1e12,
        "train/mfu": _mean([rank.flops / rank.peak for rank in ranks]),
        "train/data_wait": _mean([rank.wait for rank in ranks]),
        "train/memory_gb": max(rank.memory for rank in ranks) / 1e9,
    }
    metrics |= {f"system/{rank.host}/{name}": value for rank in ranks for name, value in rank.node.items()}
    times = [rank.own_seconds for rank in ranks if rank.own_seconds is not None]
    if len(times) < len(ranks):
        return metrics, ""
    slowest, spread = times.index(max(times)), max(times) / _mean(times)
    name = f"rank {slowest} on {ranks[slowest].host} takes {spread:.2f} x the mean" if spread > NOTABLE else ""
    return {**metrics, "train/rank_spread": spread}, name


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
