"""Repairing: any size, reproducible, independent of the batch, and the reference stays clean."""

import pytest
import torch

from refiner_ds.refiners.protocol import Sampling


@pytest.fixture
def pictures():
    torch.manual_seed(0)
    return torch.randint(0, 256, (2, 2, 3, 45, 70), dtype=torch.uint8)  # sides that no factor divides


def test_a_picture_of_any_size_keeps_it_and_its_seed_decides_it(refiner, pictures):
    render, cond = pictures[0, :1], pictures[1, :1, None]
    first, again, other = (refiner.repair(render, cond, [seed], Sampling(3, 3.0)) for seed in (7, 7, 8))
    assert first.shape == render.shape and first.dtype == torch.uint8
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_a_picture_does_not_depend_on_its_companions(refiner, pictures):
    render, cond = pictures[0], pictures[1][:, None]
    together = refiner.repair(render, cond, [1, 2], Sampling(3, 3.0))
    alone = refiner.repair(render[1:], cond[1:], [2], Sampling(3, 3.0))
    assert (together[1:].int() - alone.int()).abs().max() <= 1


def test_render_and_reference_both_matter(refiner, pictures):
    render, cond = pictures[0, :1], pictures[1, :1, None]
    base = refiner.repair(render, cond, [1], Sampling(3, 1.0))
    assert not torch.equal(base, refiner.repair(render, 255 - cond, [1], Sampling(3, 1.0)))
    assert not torch.equal(base, refiner.repair(255 - render, cond, [1], Sampling(3, 1.0)))


@pytest.mark.parametrize(("guidance", "rows"), [(10.0, 2), (1.0, 1)])
def test_twenty_steps_are_one_call_for_the_source_and_21_for_the_target(refiner, pictures, guidance, rows):
    calls = []
    hook = refiner.network.register_forward_pre_hook(lambda module, args: calls.append(args))
    render, cond = pictures[0, :1], pictures[1, :1, None]
    refiner.repair(render, cond, [1], Sampling(20, guidance))
    hook.remove()
    assert len(calls) == 1 + 21
    assert all(len(sample) == rows for sample, _ in calls)
    assert calls[0][1].abs().max() == 0 and all(timesteps.min() > 0 for _, timesteps in calls[1:])
    padded = torch.nn.functional.pad(cond[0].float(), (0, 2, 0, 3), mode="replicate").to(torch.uint8)
    clean = refiner._pipeline.encoders.latents(padded)
    assert torch.equal(calls[0][0][:1, :4], clean)
