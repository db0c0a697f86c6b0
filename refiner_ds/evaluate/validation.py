"""Validation during training: all ranks repair the held-out split, each its share, and tell figures together."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from refiner_ds.data.samples import Samples
from refiner_ds.data.stream import whole
from refiner_ds.evaluate.perceptual import Perceptual
from refiner_ds.evaluate.pictures import side_by_side
from refiner_ds.evaluate.repairs import Judged, repair_all
from refiner_ds.evaluate.summary import Summary, summary
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
    gathered: Callable[[Any], list[Any]],
    folder: Path,
    goes_on: Callable[[], bool],
    perceptual: Sequence[Perceptual] = (),
    scenes: Sequence[str] = (),
) -> tuple[Summary, list[Path]] | None:
    """Repairs the whole split over all ranks. All ranks must call.

    Args:
        gathered: what each rank gives, by rank.
        goes_on: asked before each round of one sample a rank; says the same on all ranks.
        perceptual: metrics beside PSNR and SSIM, the same on all ranks.
        scenes: of each sample; none are known where there are none.

    Returns:
        None where it did not go on, else the summary, on all ranks alike, and the pictures written into `folder`
        (render, repaired, gt and cond side by side).
    """
    network = refiner.network
    network.eval()
    own: list[Judged] = []
    share = world.share(len(held_out))
    is_whole = True
    for turn in range(-(-len(held_out) // world.size)):
        if not goes_on():
            is_whole = False
            break
        batches = (whole(held_out, i) for i in share[turn : turn + 1])
        for repaired in repair_all(refiner, batches, sampling, seed, perceptual, scenes):
            own.append(repaired.judged)
            if repaired.judged.position < PICTURES:
                folder.mkdir(parents=True, exist_ok=True)
                side_by_side(repaired).save(folder / f"{repaired.judged.key}.png")
    network.train()
    if not is_whole:
        return None
    judged = [each for rank in gathered(own) for each in rank]
    return summary(judged), sorted(folder.glob("*.png"))


def metrics_of(found: Summary) -> dict[str, float]:
    """The figures of a validation by the names that they have in the journal.

    - val/psnr, val/ssim and the perceptual ones: of the repaired pictures, val/render_psnr etc. of the renders;
    - val/gain_low, val/gain_high: the interval of the gain in PSNR;
    - val/worse_share: share of samples that have a lower PSNR than before, 0..1;
    - val/harmed, val/healed: see `compare_regions`.
    """
    figures = {f"val/{name}": estimate.mean for name, estimate in found.repaired.items()}
    figures |= {f"val/render_{name}": estimate.mean for name, estimate in found.render.items()}
    figures |= {"val/gain_low": found.gain["psnr"].low, "val/gain_high": found.gain["psnr"].high}
    figures |= {"val/worse_share": found.worse.mean}
    regions = ("harmed", "healed")
    return figures | {f"val/{name}": found.regions[name].mean for name in regions if name in found.regions}
