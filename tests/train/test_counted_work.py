"""What a micro-batch costs, counted and not timed, against figures that are committed: nothing gets slower unseen.

Who makes it cheaper, or has a reason to make it dearer, writes the new figures here.
"""

import pytest
import torch

from refiner_ds.batch import Batch
from refiner_ds.flops import Arithmetic
from refiner_ds.refiners.unclip.options import Recipe
from refiner_ds.refiners.unclip.refiner import UnclipRefiner
from tests.train.counting import Counting

B, SIDE = 2, 64
CPU = torch.device("cpu")
MFLOPS = {"encoders": 1285, "forth": 2066, "back": 4091}
LAUNCHES = {"encoders": 112, "forth": 563, "back": 643}
JOINED_BYTES = 1_780_736
"""Of torch 2.13 on a CPU, by part; LAUNCHES are operators that compute or copy, JOINED_BYTES what `cat` writes on the
way forth."""


@pytest.fixture(scope="module")
def counted(tiny_base):
    """By part of a micro-batch: (operators counted, floating-point operations)."""
    refiner = UnclipRefiner(str(tiny_base))
    refiner.place(CPU, torch.float32)
    refiner.prepare_training(Recipe())
    refiner.network.train()
    pictures = torch.zeros(B, 3, SIDE, SIDE, dtype=torch.uint8)
    batch = Batch(pictures, pictures, pictures, tuple(range(B)), ("a", "b"))
    refiner.encode(batch)  # what is made once is there

    def counting(part, goes_back=False):
        with Arithmetic(goes_back) as arithmetic, Counting() as counting:
            result = part()
        return result, counting, arithmetic.flops

    features, *encoders = counting(lambda: refiner.encode(batch))
    loss, *forth = counting(lambda: refiner.loss(refiner.network, torch.float32, features, 0)["loss"])
    _, *back = counting(loss.backward, goes_back=True)
    return {"encoders": encoders, "forth": forth, "back": back}


def test_no_part_computes_more_than_it_did(counted):
    assert {part: flops // 10**6 for part, (_, flops) in counted.items()} == MFLOPS


def test_no_part_launches_more_operators_than_it_did(counted):
    launches = {part: counting.operators.total() for part, (counting, _) in counted.items()}
    assert all(launches[part] <= LAUNCHES[part] for part in LAUNCHES), launches


def test_the_host_never_waits_for_the_device(counted):
    assert {part: counting.reads for part, (counting, _) in counted.items()} == dict.fromkeys(counted, 0)


def test_nothing_more_is_joined_than_was(counted):
    counting, _ = counted["forth"]
    assert counting.joined_bytes <= JOINED_BYTES, counting.joined_bytes
