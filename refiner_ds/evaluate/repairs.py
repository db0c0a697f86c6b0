"""Repairing held-out samples and comparing: what validation during training and the verb `evaluate` share."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from torch import Tensor

from refiner_ds.batch import Batch
from refiner_ds.chance import key_of
from refiner_ds.evaluate.metrics import compare
from refiner_ds.refiners.protocol import Refiner, Sampling

METRICS = ("psnr", "ssim")


@dataclass(frozen=True)
class Repaired:
    """One held-out sample: its pictures, each (1, 3, H, W) uint8 on the CPU, and the metrics of render and repaired."""

    batch: Batch
    picture: Tensor
    render_metrics: dict[str, float]
    repaired_metrics: dict[str, float]


def repair_all(refiner: Refiner, samples: Iterable[Batch], sampling: Sampling, seed: int) -> Iterator[Repaired]:
    """Repairs batches of one sample each; noise depends on seed and position alone, so figures compare across steps."""
    for batch in samples:
        own_seed = key_of(seed, "evaluate", batch.positions[0])
        picture = refiner.repair(batch.render, batch.cond[:, None], [own_seed], sampling).cpu()
        yield Repaired(batch, picture, compare(batch.render, batch.gt), compare(picture, batch.gt))


def means(samples: list[Repaired]) -> dict[str, dict[str, float]]:
    """Mean of each metric, of the renders and of the repaired pictures."""
    return {
        "render": {name: sum(s.render_metrics[name] for s in samples) / len(samples) for name in METRICS},
        "repaired": {name: sum(s.repaired_metrics[name] for s in samples) / len(samples) for name in METRICS},
    }
