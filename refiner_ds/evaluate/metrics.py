"""Picture metrics of one pair: PSNR and SSIM, on 8-bit pictures.

They are those of torchmetrics, with which they are compared in the tests; to import it takes longer than an evaluation
of some pictures.
"""

import math

import torch
from torch import Tensor
from torch.nn.functional import conv2d, pad

CEILING_DB = 100.0
"""PSNR of equal pictures, whose true figure is infinite and would spoil every mean."""
SIGMA, WINDOW = 1.5, 11
"""Of SSIM's Gaussian window, in pixels, and its side."""
STEADY = (0.01**2, 0.03**2)
"""Constants that keep SSIM's two quotients from dividing by zero, for values in [0, 1]."""


def compare(picture: Tensor, gt: Tensor) -> dict[str, float]:
    """PSNR in dB and SSIM of two (1, 3, H, W) uint8 pictures."""
    ours, theirs = picture.float() / 255, gt.float() / 255
    return {"psnr": _psnr(ours, theirs), "ssim": _ssim(ours, theirs)}


def _psnr(one: Tensor, other: Tensor) -> float:
    error = float((one - other).square().mean())
    return min(-10 * math.log10(error), CEILING_DB) if error else CEILING_DB


def _ssim(one: Tensor, other: Tensor) -> float:
    """Mean over all places and channels (Wang et al. 2004, section III-B); at the border the picture is mirrored."""
    mean, other_mean, square, other_square, product = _blurred(
        torch.stack([one, other, one * one, other * other, one * other])
    )
    spread, other_spread = (square - mean**2).clamp(min=0), (other_square - other_mean**2).clamp(min=0)
    light = (2 * mean * other_mean + STEADY[0]) / (mean**2 + other_mean**2 + STEADY[0])
    structure = (2 * (product - mean * other_mean) + STEADY[1]) / (spread + other_spread + STEADY[1])
    return float((light * structure).mean())


def _blurred(pictures: Tensor) -> Tensor:
    """Gaussian means of (..., H, W) around each place."""
    places = torch.arange(WINDOW, dtype=pictures.dtype, device=pictures.device) - WINDOW // 2
    weights = torch.exp(-((places / SIGMA) ** 2) / 2)
    weights /= weights.sum()
    planes = pad(pictures.flatten(0, -3)[:, None], [WINDOW // 2] * 4, mode="reflect")
    return conv2d(conv2d(planes, weights.view(1, 1, -1, 1)), weights.view(1, 1, 1, -1)).view(pictures.shape)
