"""What a micro-batch takes is counted on the meta device, and is what a real step on the CPU keeps."""

import gc

import pytest
import torch

from refiner_ds.batch import Batch
from refiner_ds.estimate.activations import measure
from refiner_ds.estimate.parameters import count
from refiner_ds.refiners.protocol import Checkpointed
from refiner_ds.refiners.unclip.base import FULL, TINY
from refiner_ds.refiners.unclip.options import Adaptation, Recipe
from refiner_ds.refiners.unclip.outline import Outline, outline_of_base, outline_of_shapes
from refiner_ds.refiners.unclip.refiner import UnclipRefiner


@pytest.fixture(scope="module")
def tiny() -> Outline:
    return outline_of_shapes(TINY, Adaptation())


@pytest.fixture(scope="module")
def full() -> Outline:
    return outline_of_shapes(FULL, Adaptation())


def kept_by_a_real_step(
    refiner: UnclipRefiner, dtype: torch.dtype, crop: int, size: int, checkpointed: Checkpointed
) -> int:
    """Bytes of distinct storages that one forward pass saves, weights aside, on the CPU with values.

    LayerNorm's statistics, (rows, tokens, 1), count as fp32: a GPU keeps them so, as a meta tensor does; a CPU in bf16.
    """
    cpu = torch.device("cpu")
    refiner.place(cpu, dtype)
    refiner.network.to(dtype).train()
    refiner.prepare_training(Recipe(), checkpointed)
    weights = {weight.untyped_storage().data_ptr() for weight in refiner.network.parameters()}
    saved, sizes = {}, {}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        place, storage = tensor.untyped_storage().data_ptr(), tensor.untyped_storage()
        is_statistic = tensor.dim() == 3 and tensor.shape[-1] == 1 and tensor.dtype == torch.bfloat16
        saved[place], sizes[place] = storage, storage.nbytes() * (2 if is_statistic else 1)
        return tensor

    pictures = torch.randint(256, (size, 3, crop, crop), dtype=torch.uint8)
    features = refiner.encode(Batch(pictures, pictures, pictures, tuple(range(size)), ("",) * size))
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        loss = refiner.loss(refiner.network, dtype, features, seed=0)["loss"]
    assert loss.isfinite()
    return sum(size for place, size in sizes.items() if place not in weights)


@pytest.mark.parametrize(
    ("dtype", "crop", "size", "checkpointed"),
    [
        (torch.float32, 64, 2, "nothing"),
        (torch.bfloat16, 64, 2, "nothing"),
        (torch.bfloat16, 96, 1, "all"),
        (torch.float32, 96, 1, "attention"),
    ],
)
def test_a_real_step_keeps_what_was_counted_to_the_byte(tiny_base, dtype, crop, size, checkpointed):
    outline = outline_of_base(str(tiny_base), None, None, Adaptation())
    counted = measure(outline, dtype, crop, size, checkpointed).kept
    refiner = UnclipRefiner(str(tiny_base), adaptation=Adaptation())
    assert counted == kept_by_a_real_step(refiner, dtype, crop, size, checkpointed)


def test_a_real_step_of_low_rank_updates_keeps_what_was_counted(tiny_base):
    adaptation = Adaptation("attention", 4)
    counted = measure(outline_of_base(str(tiny_base), None, None, adaptation), torch.bfloat16, 64, 2, "nothing").kept
    refiner = UnclipRefiner(str(tiny_base), adaptation=adaptation)
    assert counted == kept_by_a_real_step(refiner, torch.bfloat16, 64, 2, "nothing")


def test_weights_are_counted_as_they_are_loaded(tiny_base):
    outline = outline_of_base(str(tiny_base), None, None, Adaptation("attention", 4))
    refiner = UnclipRefiner(str(tiny_base), adaptation=Adaptation("attention", 4))
    weights = list(refiner.network.parameters())
    counts = count(outline)
    assert counts.trained == sum(weight.numel() for weight in weights if weight.requires_grad)
    assert counts.trained + counts.held == sum(weight.numel() for weight in weights)


def test_the_full_shapes_are_counted_without_their_memory(full):
    counts = count(full)
    assert (counts.trained, counts.held, counts.largest) == (870_184_644, 0, 29_491_200)
    assert all(weight.device.type == "meta" for weight in full.network.parameters())


def test_activations_grow_with_the_micro_batch_and_shrink_by_checkpointing(full):
    one, four = (measure(full, torch.bfloat16, 512, size, "nothing") for size in (1, 4))
    assert abs(four.kept / one.kept - 4) < 0.01
    again = measure(full, torch.bfloat16, 512, 4, "all")
    assert again.kept < four.kept / 5 and again.workspace > four.workspace
    assert again.kept + again.workspace < four.kept / 3 and again.encoding == four.encoding
    # in 512x512 a matrix of the top level's attention, 2 * 5 heads * 4096 * 4096, would take more than all of this
    assert one.kept < 16 * 2 * 5 * 4096 * 4096 * 2


def test_attention_blocks_save_most_for_the_arithmetic_that_they_take_again(full):
    nothing, attention, all_ = (measure(full, torch.bfloat16, 512, 1, name) for name in ("nothing", "attention", "all"))
    saved = (nothing.kept - attention.kept) / (nothing.kept - all_.kept)
    taken = (attention.flops - nothing.flops) / (all_.flops - nothing.flops)
    assert 0.8 < saved < 0.83 and 0.55 < taken < 0.58
    assert all_.flops / nothing.flops == pytest.approx(1.2535, abs=1e-3)


def test_counting_leaves_nothing_behind(tiny):
    first = measure(tiny, torch.bfloat16, 64, 1, "all")
    assert all(weight.grad is None for weight in tiny.network.parameters())
    gc.collect()
    assert measure(tiny, torch.bfloat16, 64, 1, "all") == first
    query = torch.empty(1, 1, 4, 4, device="meta", requires_grad=True)
    saved = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: saved.append(t.shape) or t, lambda t: t):
        torch.nn.functional.scaled_dot_product_attention(query, query, query)
    assert torch.Size([1, 1, 4]) not in saved  # no log-sum-exp: the plain product is back
