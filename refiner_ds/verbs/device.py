"""Where verbs compute outside training."""

import torch

from refiner_ds.errors import UserError
from refiner_ds.refiners.protocol import Refiner


def place(refiner: Refiner, choice: str) -> None:
    """Puts the whole refiner on the chosen device: fp16 on a GPU, fp32 on the CPU.

    Raises:
        UserError: a GPU is asked for and there is none.
    """
    if choice == "cuda" and not torch.cuda.is_available():
        raise UserError("--device cuda, but torch finds no GPU here; take --device cpu or auto.")
    cuda = choice != "cpu" and torch.cuda.is_available()
    refiner.place(torch.device("cuda" if cuda else "cpu"), torch.float16 if cuda else torch.float32, whole=True)
