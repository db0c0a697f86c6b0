"""What a run computes in: the precisions of a network, and whether fp32 products may be rounded."""

import torch

DTYPES = {"no": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
"""By the names of --mixed_precision."""


def allow_tf32(is_allowed: bool) -> None:
    """Whether fp32 products and convolutions on a GPU may be rounded to TF32's 10 bits of mantissa."""
    torch.backends.cuda.matmul.allow_tf32 = is_allowed
    torch.backends.cudnn.allow_tf32 = is_allowed
