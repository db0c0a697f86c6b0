"""Picture metrics of one pair: PSNR and SSIM in torchmetrics' definitions, on 8-bit pictures."""

from torch import Tensor
from torchmetrics.functional.image import peak_signal_noise_ratio, structural_similarity_index_measure

CEILING_DB = 100.0
"""PSNR of equal pictures, whose true figure is infinite and would spoil every mean."""


def compare(picture: Tensor, gt: Tensor) -> dict[str, float]:
    """PSNR in dB and SSIM (Wang et al. 2004; Gaussian window, sigma 1.5) of two (1, 3, H, W) uint8 pictures."""
    ours, theirs = picture.float() / 255, gt.float() / 255
    psnr = float(peak_signal_noise_ratio(ours, theirs, data_range=1.0))
    ssim = structural_similarity_index_measure(ours, theirs, data_range=1.0)
    return {"psnr": min(psnr, CEILING_DB), "ssim": float(ssim)}
