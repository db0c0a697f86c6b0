"""What the figures of all held-out samples come to: means, how sure they are, and where a repair does harm."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field

import numpy as np

from refiner_ds.chance import generator_of
from refiner_ds.evaluate.repairs import Judged

LEVEL = 0.95
RESAMPLES = 1000
LEAST_SCENES = 8
"""From so many scenes on it is scenes that are drawn, as frames of one scene are alike."""
STRENGTHS = ("severe", "medium", "mild")
"""Thirds of the samples, by the PSNR of their renders."""


@dataclass(frozen=True)
class Estimate:
    """A mean over samples and its interval: where the mean of others like them lies with a probability of LEVEL."""

    mean: float
    low: float
    high: float


@dataclass(frozen=True)
class Group:
    """Means of part of the samples.

    Attributes:
        name: of the scene or the strength.
        below: PSNR of the renders in dB up to which a strength reaches; None for scenes and the mildest.
    """

    name: str
    samples: int
    render: dict[str, float]
    repaired: dict[str, float]
    worse_share: float
    below: float | None = None


@dataclass(frozen=True)
class Summary:
    """Of all samples.

    Attributes:
        render, repaired, gain: by metric; a gain is repaired less render, so of LPIPS it is good where negative.
        worse: share of samples whose repaired picture has a lower PSNR than the render.
        regions: by the names of `compare_regions`, over the samples that have the region.
        drawn: what the intervals are over, "samples" or "scenes".
        scenes, strengths: in the order of their names, and from severe to mild.
    """

    samples: int
    render: dict[str, Estimate]
    repaired: dict[str, Estimate]
    gain: dict[str, Estimate]
    worse: Estimate
    regions: dict[str, Estimate]
    drawn: str
    scenes: list[Group] = field(default_factory=list)
    strengths: list[Group] = field(default_factory=list)

    def as_json(self) -> dict[str, object]:
        """Means by metric under render and repaired, as programs read them, and the rest with intervals beside."""
        told = asdict(self)
        for name in ("render", "repaired"):
            told[name] = {metric: estimate["mean"] for metric, estimate in told[name].items()}
        intervals = {
            name: {metric: [estimate.low, estimate.high] for metric, estimate in estimates.items()}
            for name, estimates in (("render", self.render), ("repaired", self.repaired))
        }
        return {**told, "intervals": {"level": LEVEL, "over": told.pop("drawn"), **intervals}}


def summary(judged: Sequence[Judged]) -> Summary:
    """The summary of at least one sample, the same for any order of them."""
    judged = sorted(judged, key=lambda each: each.position)
    scenes = sorted({each.scene for each in judged} - {""})
    blocks = [[i for i, each in enumerate(judged) if each.scene == scene] for scene in scenes]
    is_by_scene = len(scenes) >= LEAST_SCENES and all(each.scene for each in judged)
    draws = _draws(blocks if is_by_scene else [[i] for i in range(len(judged))])
    metrics = judged[0].render
    render = {name: np.array([each.render[name] for each in judged]) for name in metrics}
    repaired = {name: np.array([each.repaired[name] for each in judged]) for name in metrics}
    regions = sorted({name for each in judged for name in each.regions})
    return Summary(
        samples=len(judged),
        render={name: _estimate(values, draws) for name, values in render.items()},
        repaired={name: _estimate(values, draws) for name, values in repaired.items()},
        gain={name: _estimate(repaired[name] - render[name], draws) for name in metrics},
        worse=_estimate(np.array([each.gain < 0 for each in judged], float), draws),
        regions={
            name: _estimate(np.array([each.regions.get(name, np.nan) for each in judged]), draws) for name in regions
        },
        drawn="scenes" if is_by_scene else "samples",
        scenes=[_group(scene, [judged[i] for i in block]) for scene, block in zip(scenes, blocks, strict=True)],
        strengths=_strengths(judged),
    )


def means(judged: Sequence[Judged]) -> dict[str, dict[str, float]]:
    """Mean of each metric, of the renders and of the repaired pictures."""
    return {
        "render": _means([each.render for each in judged]),
        "repaired": _means([each.repaired for each in judged]),
    }


def _draws(blocks: Sequence[Sequence[int]]) -> np.ndarray:
    """(RESAMPLES, samples) how often each sample is in each draw of as many blocks as there are (Efron 1979)."""
    block_of = np.empty(sum(map(len, blocks)), int)
    for number, block in enumerate(blocks):
        block_of[list(block)] = number
    chance = generator_of(0, "bootstrap")
    counts = chance.multinomial(len(blocks), np.full(len(blocks), 1 / len(blocks)), RESAMPLES)
    return counts.astype(np.float32)[:, block_of]


def _estimate(values: np.ndarray, draws: np.ndarray) -> Estimate:
    """Mean and percentile interval; samples of which there is no figure are left out."""
    has = np.isfinite(values)
    kept, weights = values[has], draws[:, has]
    total = weights.sum(axis=1)
    drawn = weights[total > 0] @ kept / total[total > 0]
    low, high = np.quantile(drawn, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Estimate(float(kept.mean()), float(low), float(high))


def _strengths(judged: Sequence[Judged]) -> list[Group]:
    """Thirds from the worst renders to the best, where there are enough samples for thirds."""
    if len(judged) < len(STRENGTHS):
        return []
    ranked = sorted(judged, key=lambda each: (each.render["psnr"], each.position))
    parts = [[ranked[i] for i in part] for part in np.array_split(np.arange(len(ranked)), len(STRENGTHS))]
    limits = [part[0].render["psnr"] for part in parts[1:]]
    return [_group(*each) for each in zip(STRENGTHS, parts, [*limits, None], strict=True)]


def _group(name: str, judged: Sequence[Judged], below: float | None = None) -> Group:
    worse = sum(each.gain < 0 for each in judged) / len(judged)
    return Group(name, len(judged), **means(judged), worse_share=worse, below=below)


def _means(figures: Sequence[Mapping[str, float]]) -> dict[str, float]:
    return {name: sum(each[name] for each in figures) / len(figures) for name in figures[0]}
