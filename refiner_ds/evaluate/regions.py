"""Where a render is right and where it is wrong: holes, needles and blur are to be repaired, and the rest let be."""

import math

import torch
from torch import Tensor

from refiner_ds.evaluate.metrics import CEILING_DB

WINDOW = 9
"""Pixels on a side over which the error is averaged, so that a needle counts and the grain of a photograph does not."""
WRONG_FROM = 0.1
"""Mean error, of a range of 1, from which on a place counts as wrong."""
LEAST_SHARE = 0.01
"""Share of the picture that a region takes at least, or no figure is told of it."""


def is_wrong(picture: Tensor, gt: Tensor) -> Tensor:
    """(1, 1, H, W) bool: where a picture is far from gt, both (1, 3, H, W) uint8, in the mean over WINDOW pixels."""
    error = ((picture.float() - gt.float()).abs() / 255).mean(dim=1, keepdim=True)
    mean = torch.nn.functional.avg_pool2d(error, WINDOW, stride=1, padding=WINDOW // 2, count_include_pad=False)
    return mean >= WRONG_FROM


def compare_regions(render: Tensor, picture: Tensor, gt: Tensor) -> dict[str, float]:
    """What became of the right and the wrong places of a render; a region below LEAST_SHARE is left out.

    - wrong_share: share of the picture where the render is wrong, 0..1;
    - right_render_psnr, right_psnr: PSNR in dB of render and repaired picture where the render is right;
    - harmed: share of the right places that are wrong in the repaired picture, 0..1;
    - wrong_render_psnr, wrong_psnr, healed: the same of the wrong places, and their share that is right afterwards.

    Args:
        render, picture, gt: (1, 3, H, W) uint8.
    """
    was_wrong, now_wrong = is_wrong(render, gt), is_wrong(picture, gt)
    figures = {"wrong_share": float(was_wrong.float().mean())}
    for name, region, changed, change in (
        ("right", ~was_wrong, now_wrong, "harmed"),
        ("wrong", was_wrong, ~now_wrong, "healed"),
    ):
        if float(region.float().mean()) >= LEAST_SHARE:
            figures[f"{name}_render_psnr"] = _psnr(render, gt, region)
            figures[f"{name}_psnr"] = _psnr(picture, gt, region)
            figures[change] = float(changed[region].float().mean())
    return figures


def _psnr(picture: Tensor, gt: Tensor, region: Tensor) -> float:
    """In dB, over the pixels of a region alone."""
    squares = ((picture.float() - gt.float()) / 255).square().mean(dim=1, keepdim=True)
    error = float(squares[region].mean())
    return min(CEILING_DB, -10 * math.log10(error)) if error else CEILING_DB
