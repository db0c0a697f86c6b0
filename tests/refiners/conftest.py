"""What the tests of repairing share: a refiner whose weights mean something."""

import pytest
import torch

from refiner_ds.refiners.unclip.refiner import UnclipRefiner


@pytest.fixture(scope="module")
def refiner(tiny_base):
    """A tiny refiner on the CPU in fp32; fresh networks have zeros where equality would mean nothing."""
    made = UnclipRefiner(str(tiny_base))
    made.place(torch.device("cpu"), torch.float32, whole=True)
    torch.manual_seed(3)
    for parameter in made.network.parameters():
        parameter.data += 0.02 * torch.randn_like(parameter)
    return made
