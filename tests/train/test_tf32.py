"""TF32: allowed when it is asked for, and only then. What it does to a product needs a GPU to be seen."""

import torch

from refiner_ds.train.precision import allow_tf32


def test_products_and_convolutions_are_exact_unless_tf32_is_asked_for():
    before = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    try:
        for is_allowed in (True, False):
            allow_tf32(is_allowed)
            assert torch.backends.cuda.matmul.allow_tf32 is is_allowed
            assert torch.backends.cudnn.allow_tf32 is is_allowed
    finally:
        torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = before
