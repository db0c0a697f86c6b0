"""What is trained of the network, how it is merged for an export, and what a run may change about the schedule."""

import json

import pytest
import torch

from refiner_ds.batch import Batch
from refiner_ds.errors import UserError
from refiner_ds.refiners.protocol import Sampling
from refiner_ds.refiners.unclip.adapt import merge
from refiner_ds.refiners.unclip.options import Adaptation, Recipe
from refiner_ds.refiners.unclip.refiner import UnclipRefiner

CPU = torch.device("cpu")


@pytest.fixture
def batch():
    pictures = torch.randint(0, 256, (3, 2, 3, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
    return Batch(*pictures, positions=(3, 8), keys=("a", "b"))


def _refiner(base, recipe=None, checkpointed="nothing", **adaptation):
    made = UnclipRefiner(str(base), adaptation=Adaptation(**adaptation))
    made.place(CPU, torch.float32)
    made.prepare_training(recipe or Recipe(), checkpointed)
    return made


def _trained(refiner):
    return {name for name, parameter in refiner.network.named_parameters() if parameter.requires_grad}


def _loss(refiner, batch):
    return refiner.loss(refiner.network, torch.float32, refiner.encode(batch), seed=0)["loss"]


def _one_step(refiner, batch):
    """A plain step down the gradient: all that is trained moves, and nothing else."""
    _loss(refiner, batch).backward()
    with torch.no_grad():
        for parameter in refiner.network.parameters():
            assert (parameter.grad is not None) == parameter.requires_grad
            if parameter.requires_grad:
                parameter += 0.05 * torch.randn_like(parameter)


def test_everything_is_trained_unless_attention_alone_is_asked_for(tiny_base):
    assert all(parameter.requires_grad for parameter in _refiner(tiny_base).network.parameters())
    names = _trained(_refiner(tiny_base, trainable="attention"))
    assert {"conv_in.weight", "conv_in.bias"} < names
    assert all(".attn1." in name or ".attn2." in name for name in names - {"conv_in.weight", "conv_in.bias"})
    assert (
        sum(".attn1.to_q.weight" in name for name in names) == sum(".attn2.to_q.weight" in name for name in names) > 4
    )


@pytest.mark.parametrize("trainable", ["all", "attention"])
def test_low_rank_updates_start_at_zero_are_equal_on_all_ranks_and_train_beside_conv_in(tiny_base, batch, trainable):
    full, low, again = (_refiner(tiny_base, trainable=trainable, lora_rank=rank) for rank in (None, 4, 4))
    full.network.requires_grad_(False)  # as what low rank leaves alone is: torch has other kernels for other weights
    assert torch.equal(_loss(full, batch), _loss(low, batch))
    for (name, one), (_, other) in zip(low.network.named_parameters(), again.network.named_parameters(), strict=True):
        assert torch.equal(one, other), name
    names = _trained(low)
    assert {"conv_in.weight", "conv_in.bias"} < names and all("lora" in name or "conv_in" in name for name in names)
    count = sum(p.numel() for p in low.network.parameters() if p.requires_grad)
    assert count < 0.2 * sum(p.numel() for p in full.network.parameters())
    assert any("conv1" in name for name in names) == (trainable == "all")


def test_merged_low_rank_updates_compute_what_they_did_apart(tiny_base, batch):
    refiner = _refiner(tiny_base, trainable="attention", lora_rank=4)
    _one_step(refiner, batch)
    apart = _loss(refiner, batch)
    merge(refiner.network)
    stock = set(_refiner(tiny_base).network.state_dict())
    assert set(refiner.network.state_dict()) == stock
    torch.testing.assert_close(_loss(refiner, batch), apart, rtol=1e-5, atol=1e-6)


def test_a_saved_low_rank_refiner_differs_from_its_base_where_it_was_trained_alone(tiny_base, batch, tmp_path):
    trained = _refiner(tiny_base, trainable="attention", lora_rank=2)
    _one_step(trained, batch)
    weights = {name: p.detach() for name, p in trained.network.named_parameters() if p.requires_grad}
    again = _refiner(tiny_base, trainable="attention", lora_rank=2)
    again.load_weights(weights.items())
    again.save(tmp_path / "out")
    saved, base = UnclipRefiner(str(tmp_path / "out")), UnclipRefiner(str(tiny_base))
    torch.testing.assert_close(_loss_of(saved, batch), _loss(trained, batch), rtol=1e-5, atol=1e-6)
    for (name, one), (_, other) in zip(saved.network.named_parameters(), base.network.named_parameters(), strict=True):
        is_trained = "conv_in" in name or (".attn" in name and name.endswith("weight"))
        assert torch.equal(one, other) != is_trained, name


def _loss_of(refiner, batch):
    refiner.place(CPU, torch.float32)
    refiner.prepare_training(Recipe())
    return _loss(refiner, batch)


def test_gradient_checkpointing_keeps_less_and_changes_no_gradient(tiny_base, batch):
    found = []
    for blocks in ("nothing", "attention", "all"):
        refiner, kept = _refiner(tiny_base, checkpointed=blocks), []
        refiner.network.train()
        own = {parameter.data_ptr() for parameter in refiner.network.parameters()}
        with torch.autograd.graph.saved_tensors_hooks(
            lambda tensor, own=own, kept=kept: kept.append(0 if tensor.data_ptr() in own else tensor.nbytes) or tensor,
            lambda tensor: tensor,
        ):
            loss = _loss(refiner, batch)
        loss.backward()
        found.append((sum(kept), [parameter.grad for parameter in refiner.network.parameters()]))
    (plain, gradients), *others = found
    attention, all_ = (kept for kept, _ in others)
    assert all_ < attention < plain and all_ < 0.6 * plain
    for _, same in others:
        assert all(torch.equal(one, other) for one, other in zip(gradients, same, strict=True))


def test_the_prediction_type_changes_what_is_learned_and_travels_with_the_export(tiny_base, batch, tmp_path):
    velocity, noise = _refiner(tiny_base), _refiner(tiny_base, prediction_type="epsilon")
    assert not torch.equal(_loss(velocity, batch), _loss(noise, batch))
    noise.save(tmp_path / "out")
    config = json.loads((tmp_path / "out" / "scheduler" / "scheduler_config.json").read_text())
    assert config["prediction_type"] == "epsilon"


def test_without_signal_at_the_end_the_last_row_is_noise_alone_and_the_export_samples_from_there(tiny_base, tmp_path):
    refiner = _refiner(tiny_base, zero_terminal_snr=True)
    clean, noise = torch.randn(2, 4, 8, 8), torch.randn(2, 4, 8, 8)
    noisy, velocity = refiner._objective.noised(clean, noise, torch.tensor([0, 999]))
    assert torch.equal(noisy[1], noise[1]) and torch.allclose(velocity[1], -clean[1])
    plain, _ = _refiner(tiny_base)._objective.noised(clean, noise, torch.tensor([0, 999]))
    assert torch.allclose(noisy[0], plain[0], atol=1e-6) and not torch.allclose(noisy[1], plain[1], atol=1e-2)
    assert refiner._objective.row_weights(torch.tensor([0, 999])).isfinite().all()
    refiner.save(tmp_path / "out")
    config = json.loads((tmp_path / "out" / "scheduler" / "scheduler_config.json").read_text())
    assert config["_class_name"] == "DDIMScheduler"
    assert config["rescale_betas_zero_snr"] and config["timestep_spacing"] == "trailing"
    saved = UnclipRefiner(str(tmp_path / "out"))
    saved.place(CPU, torch.float32, whole=True)
    picture = torch.randint(0, 256, (1, 3, 32, 32), dtype=torch.uint8)
    assert saved.repair(picture, picture[:, None], [0], Sampling(4, 1.0)).float().std() > 0


def test_noise_that_cannot_be_told_from_its_prediction_is_refused(tiny_base, tmp_path):
    with pytest.raises(UserError, match=r"rescale_betas_zero_snr.*v_prediction"):
        UnclipRefiner(str(tiny_base), adaptation=Adaptation(prediction_type="epsilon", zero_terminal_snr=True))
    UnclipRefiner(str(tiny_base), adaptation=Adaptation(zero_terminal_snr=True)).save(tmp_path / "made_so")
    with pytest.raises(UserError, match="or a base made so"):
        UnclipRefiner(str(tmp_path / "made_so"), adaptation=Adaptation(prediction_type="epsilon"))
