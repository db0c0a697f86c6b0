"""What a device can compute at most: from a table of GPUs, or by a product of matrices where it is not in there."""

import time
from collections.abc import Mapping

import torch

HALF, TF32, SINGLE = "half", "tf32", "single"
"""Precisions of products: bf16 and fp16 alike, fp32 rounded to TF32, and fp32."""

H100_SXM = {HALF: 989.5, TF32: 494.5, SINGLE: 67.0}
A100 = {HALF: 312.0, TF32: 156.0, SINGLE: 19.5}

# Dense products with sums in fp32, of tensor cores but for SINGLE: figures of NVIDIA's data sheets as public tables
# repeat them, halved where they count sparse matrices. What could not be looked up is left out, and so measured.
TERAFLOPS: Mapping[str, Mapping[str, float]] = {
    "NVIDIA H200": H100_SXM,
    "NVIDIA H100 80GB HBM3": H100_SXM,
    "NVIDIA H100 PCIe": {HALF: 756.5, TF32: 378.0, SINGLE: 51.0},
    "NVIDIA A100-SXM4-40GB": A100,
    "NVIDIA A100-SXM4-80GB": A100,
    "NVIDIA A100-PCIE-40GB": A100,
    "NVIDIA A100 80GB PCIe": A100,
    "NVIDIA L40S": {HALF: 362.0, TF32: 183.0, SINGLE: 91.6},
    "NVIDIA L4": {HALF: 121.0, TF32: 60.0, SINGLE: 30.3},
    "NVIDIA A10": {HALF: 125.0, TF32: 62.5, SINGLE: 31.2},
    "NVIDIA GeForce RTX 4090": {HALF: 165.2, TF32: 82.6, SINGLE: 82.6},
}
"""TFLOP/s by the name that torch.cuda.get_device_name gives; a MIG slice has another, and is measured."""

SECONDS = 0.25
"""How long a measurement may take, about."""
SIDES = (128, 256, 512, 1024, 2048, 4096)


def peak_of(device: torch.device, dtype: torch.dtype) -> float:
    """FLOP/s of products in `dtype` on a device at most: from the table if it is a GPU in there, else measured now.

    On a CPU it is measured with the threads that this rank has, while the other ranks of the host do so too: the share
    of the machine that it gets. A measurement is no upper bound; what is compared with it may come out above it.
    """
    precision = SINGLE if dtype == torch.float32 else HALF
    if device.type == "cuda":
        if precision == SINGLE and torch.backends.cuda.matmul.allow_tf32:
            precision = TF32
        name = torch.cuda.get_device_name(device)
        if name in TERAFLOPS:
            return TERAFLOPS[name][precision] * 1e12
    return measured_peak(device, dtype)


@torch.no_grad()
def measured_peak(device: torch.device, dtype: torch.dtype) -> float:
    """FLOP/s of the fastest of a few products of ever larger matrices, up to 4096 x 4096; waits for the device."""
    best, began = 0.0, time.perf_counter()
    generator = torch.Generator(device).manual_seed(0)  # the run's own chance stays as it is
    for side in SIDES:
        one, two = torch.randn(2, side, side, device=device, generator=generator).to(dtype)
        seconds = min([_seconds(one, two) for _ in range(4)])
        best = max(best, 2 * side**3 / seconds)
        next_seconds = 4 * 8 * seconds
        if time.perf_counter() - began + next_seconds > SECONDS:
            break
    return best


def _seconds(one: torch.Tensor, two: torch.Tensor) -> float:
    began = time.perf_counter()
    product = one @ two
    if product.device.type == "cuda":
        torch.cuda.synchronize(product.device)
    return time.perf_counter() - began
