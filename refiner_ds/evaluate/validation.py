"""Validation during training: all ranks repair the held-out split, each its share, and the means go to the journal."""

from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from refiner_ds.data.samples import Samples
from refiner_ds.data.stream import whole
from refiner_ds.evaluate.pictures import side_by_side
from refiner_ds.evaluate.repairs import METRICS, repair_all
from refiner_ds.refiners.protocol import Refiner, Sampling
from refiner_ds.world import World

PICTURES = 4
"""Samples whose pictures are kept at every validation."""


def validate(
    refiner: Refiner,
    held_out: Samples,
    world: World,
    sampling: Sampling,
    seed: int,
    sum_over_ranks: Callable[[Tensor], Tensor],
    device: torch.device,
    folder: Path,
    goes_on: Callable[[], bool],
) -> tuple[dict[str, float], list[Path]] | None:
    """Repairs the whole split over all ranks. All ranks must call.

    Args:
        goes_on: asked before each round of one sample a rank; says the same on all ranks.

    Returns:
        None where it did not go on, else val/psnr and val/ssim of the repaired pictures, val/render_psnr and
        val/render_ssim of the renders, and the pictures written into `folder` (render, repaired, gt and cond side by
        side).
    """
    network = refiner.network
    network.eval()
    sums = torch.zeros(2 * len(METRICS), dtype=torch.float64, device=device)
    share = world.share(len(held_out))
    is_whole = True
    for turn in range(-(-len(held_out) // world.size)):
        if not goes_on():
            is_whole = False
            break
        for repaired in repair_all(refiner, (whole(held_out, i) for i in share[turn : turn + 1]), sampling, seed):
            figures = [repaired.repaired_metrics[n] for n in METRICS] + [repaired.render_metrics[n] for n in METRICS]
            sums += torch.tensor(figures, dtype=torch.float64, device=device)
            if repaired.batch.positions[0] < PICTURES:
                folder.mkdir(parents=True, exist_ok=True)
                side_by_side(repaired).save(folder / f"{repaired.batch.keys[0]}.png")
    network.train()
    if not is_whole:
        return None
    values = (sum_over_ranks(sums) / len(held_out)).tolist()
    names = [f"val/{name}" for name in METRICS] + [f"val/render_{name}" for name in METRICS]
    return dict(zip(names, values, strict=True)), sorted(folder.glob("*.png"))
