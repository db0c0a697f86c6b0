"""Repairing held-out samples and comparing: what validation during training and the verb `evaluate` share."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from torch import Tensor

from refiner_ds.batch import Batch
from refiner_ds.chance import key_of
from refiner_ds.evaluate.metrics import compare
from refiner_ds.evaluate.perceptual import Perceptual
from refiner_ds.evaluate.regions import compare_regions
from refiner_ds.refiners.protocol import Refiner, Sampling


@dataclass(frozen=True)
class Judged:
    """Figures of one held-out sample.

    Attributes:
        position: among the held-out samples, which decides its noise.
        scene: what its neighbours share; empty where unknown.
        render, repaired: metrics of the two pictures against gt, by name; all samples have the same.
        regions: as `compare_regions` gives them.
    """

    position: int
    key: str
    render: dict[str, float]
    repaired: dict[str, float]
    regions: dict[str, float] = field(default_factory=dict)
    scene: str = ""

    @property
    def gain(self) -> float:
        """PSNR of the repaired picture over that of the render, in dB."""
        return self.repaired["psnr"] - self.render["psnr"]


@dataclass(frozen=True)
class Repaired:
    """One held-out sample with its pictures, each (1, 3, H, W) uint8 on the CPU."""

    batch: Batch
    picture: Tensor
    judged: Judged


def repair_all(
    refiner: Refiner,
    samples: Iterable[Batch],
    sampling: Sampling,
    seed: int,
    perceptual: Sequence[Perceptual] = (),
    scenes: Sequence[str] = (),
) -> Iterator[Repaired]:
    """Repairs batches of one sample each; noise depends on seed and position alone, so figures compare across steps.

    Args:
        perceptual: metrics beside PSNR and SSIM.
        scenes: by position; none are known where there are none.
    """
    for batch in samples:
        (position,), (key,) = batch.positions, batch.keys
        own_seed = key_of(seed, "evaluate", position)
        picture = refiner.repair(batch.render, batch.cond[:, None], [own_seed], sampling).cpu()
        render, repaired = (
            {**compare(each, batch.gt), **{metric.name: metric.compare(each, batch.gt) for metric in perceptual}}
            for each in (batch.render, picture)
        )
        regions = compare_regions(batch.render, picture, batch.gt)
        scene = scenes[position] if scenes else ""
        yield Repaired(batch, picture, Judged(position, key, render, repaired, regions, scene))
