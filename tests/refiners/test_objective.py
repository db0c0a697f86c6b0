"""The objective: draws, dropout, noise, velocity and the loss of both branches."""

from types import SimpleNamespace

import pytest
import torch

from refiner_ds.refiners.unclip.encode import Features
from refiner_ds.refiners.unclip.objective import DROPPED, Draws, Objective, draw, draw_few, kept
from refiner_ds.refiners.unclip.options import Recipe
from refiner_ds.refiners.unclip.parts import load_parts
from refiner_ds.refiners.unclip.portable.frozen_encoders import ClassVector

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def parts(tiny_base):
    return load_parts(str(tiny_base))


@pytest.fixture
def features():
    torch.manual_seed(0)
    render, gt, cond = torch.randn(3, 2, 4, 8, 8)
    return Features(render, gt, cond, torch.randn(2, 32), positions=(11, 12))


class Recorder:
    """A network that answers zeros and keeps what it was asked."""

    def __call__(self, sample, timesteps, **conditions):
        self.asked = SimpleNamespace(sample=sample, timesteps=timesteps, **conditions)
        return SimpleNamespace(sample=torch.zeros_like(sample[:, :4]))


def _objective(parts, **options):
    return Objective(parts, torch.zeros(1, 77, 32), Recipe(**options), CPU)


def _draw(positions, seed=3, latent=(4, 8, 8), embedding=32, **options):
    return draw(positions, seed, latent, embedding, 1000, Recipe(**options), CPU)


def _draws(keep=((1.0, 1.0, 1.0), (1.0, 1.0, 1.0))):
    torch.manual_seed(1)
    return Draws(torch.randn(4, 4, 8, 8), torch.randn(2, 32), torch.tensor([0, 400, 0, 999]), torch.tensor(keep))


def test_dropout_takes_seven_equal_cases_and_keeps_everything_above_them():
    cases = [kept((i + 0.5) * 0.05, 0.05) for i in range(7)]
    assert cases == [tuple(float(not dropped) for dropped in case) for case in DROPPED]
    assert len(set(cases)) == 7
    assert kept(0.3501, 0.05) == kept(0.999, 0.05) == kept(0.0, 0.0) == (1.0, 1.0, 1.0)
    assert kept(0.0499, 0.05) == cases[0] and kept(0.05, 0.05) == cases[1]


def test_what_is_told_of_a_sample_is_what_is_drawn_for_it():
    recipe, positions = Recipe(condition_dropout=1 / 7), range(20)
    draws = _draw(positions, condition_dropout=1 / 7)
    few = [draw_few(position, 3, 1000, recipe) for position in positions]
    assert [timestep for timestep, _ in few] == draws.timesteps[1::2].tolist()
    assert [list(keep) for _, keep in few] == draws.keep.tolist()


def test_draws_belong_to_positions_not_to_batches():
    together = _draw((5, 9), condition_dropout=0.1)
    alone = [_draw((position,), condition_dropout=0.1) for position in (5, 9)]
    for name in ("noise", "embedding_noise", "timesteps", "keep"):
        assert torch.equal(getattr(together, name), torch.cat([getattr(draws, name) for draws in alone])), name
    other_seed = _draw((5,), seed=4, condition_dropout=0.1)
    assert not torch.equal(alone[0].noise, other_seed.noise)
    assert not torch.equal(alone[0].noise[0], alone[0].noise[1])


def test_timesteps_and_dropout_are_uniform_over_many_positions():
    draws = _draw(range(4000), 0, (1, 1, 1), 1, condition_dropout=0.05)
    source, target = draws.timesteps.view(-1, 2).T
    assert source.abs().max() == 0
    assert target.min() < 10 and target.max() > 989 and abs(float(target.float().mean()) - 499.5) < 20
    assert torch.allclose(
        1 - draws.keep.mean(0), torch.full((3,), 4 * 0.05), atol=0.02
    )  # each is in four of seven cases


def test_source_rows_are_noised_by_the_fp32_coefficient_of_timestep_zero(parts):
    noise = torch.randn(2, 4, 8, 8)
    noisy, _ = _objective(parts).noised(torch.zeros_like(noise), noise, torch.tensor([0, 0]))
    assert torch.allclose(noisy / noise, torch.tensor((0.00085) ** 0.5), rtol=1e-4)  # bf16 would make it zero


def test_velocity_and_noisy_latents_give_back_the_clean_ones(parts):
    clean, noise, timesteps = torch.randn(3, 4, 8, 8), torch.randn(3, 4, 8, 8), torch.tensor([0, 500, 999])
    noisy, velocity = _objective(parts).noised(clean, noise, timesteps)
    alpha = torch.cumprod(1 - torch.linspace(0.00085**0.5, 0.012**0.5, 1000) ** 2, 0)[timesteps].view(-1, 1, 1, 1)
    assert torch.allclose(alpha.sqrt() * noisy - (1 - alpha).sqrt() * velocity, clean, atol=1e-5)


def test_the_loss_is_the_mean_over_both_rows_and_the_source_weight_acts_on_its_row_alone(parts, features):
    losses = _objective(parts).losses(Recorder(), torch.float32, features, _draws())
    assert torch.isclose(losses["loss"], (losses["loss_source"] + losses["loss_target"]) / 2)
    light = _objective(parts, source_loss_weight=0.1).losses(Recorder(), torch.float32, features, _draws())
    assert torch.isclose(light["loss"], (0.1 * losses["loss_source"] + losses["loss_target"]) / 2)


def test_the_target_rows_losses_are_told_by_quarter_of_their_timesteps(parts, features):
    losses = _objective(parts).losses(Recorder(), torch.float32, features, _draws())  # of timesteps 400 and 999
    total, count = losses["loss_t"].unbind(dim=1)
    assert count.tolist() == [0, 1, 0, 1] and total[0] == total[2] == 0
    assert torch.isclose(total.sum() / 2, losses["loss_target"]) and total[1] != total[3]


@pytest.mark.parametrize("case", range(7))
def test_a_dropped_condition_reaches_the_network_as_zeros_and_the_others_untouched(parts, features, case):
    keep = tuple(float(not dropped) for dropped in DROPPED[case])
    full, dropped = Recorder(), Recorder()
    _objective(parts).losses(full, torch.float32, features, _draws())
    draws = _draws((keep, (1.0, 1.0, 1.0)))
    _objective(parts).losses(dropped, torch.float32, features, draws)
    first = slice(0, 2)  # the rows of the first pair
    assert torch.equal(dropped.asked.sample[first, 4:], full.asked.sample[first, 4:] * keep[0])
    assert torch.equal(dropped.asked.class_labels[first], full.asked.class_labels[first] * keep[1])
    source = dropped.asked.sample[0, :4]
    if keep[2]:
        assert torch.equal(source, full.asked.sample[0, :4])
    else:  # the row still runs: noise on zeros
        assert torch.allclose(source, (0.00085**0.5) * draws.noise[0], atol=1e-6)
    assert torch.equal(dropped.asked.sample[2:], full.asked.sample[2:])


def test_both_rows_get_the_render_and_rows_have_their_own_timesteps(parts, features):
    network = Recorder()
    _objective(parts).losses(network, torch.float32, features, _draws())
    assert network.asked.timesteps.tolist() == [0, 400, 0, 999]
    for row in range(4):
        assert torch.equal(network.asked.sample[row, 4:], features.render[row // 2])


def test_the_class_vector_ends_with_the_sinusoids_of_level_zero(parts):
    embedding = torch.randn(2, 32)
    vector = ClassVector(parts, CPU)(embedding, torch.zeros(2, 32))
    assert vector.shape == (2, 64)
    assert torch.equal(vector[:, 32:], torch.cat([torch.ones(2, 16), torch.zeros(2, 16)], dim=1))
    noised = ClassVector(parts, CPU)(torch.zeros(2, 32), torch.ones(2, 32))
    assert torch.allclose(noised[:, :32], torch.tensor(0.00643), atol=1e-4)


def test_a_noise_offset_is_constant_over_each_channel_of_a_row_and_leaves_every_other_draw(parts):
    plain, offset = _draw((5, 9)), _draw((5, 9), noise_offset=0.1)
    added = offset.noise - plain.noise
    assert torch.allclose(added, added[..., :1, :1].expand_as(added), atol=1e-6)
    assert len(added[..., 0, 0].flatten().unique()) == 4 * 4  # its own in every row and channel
    many = _draw(range(500), 0, (4, 1, 1), 1, noise_offset=0.1).noise - _draw(range(500), 0, (4, 1, 1), 1).noise
    assert abs(float(many.std()) - 0.1) < 0.005
    for name in ("embedding_noise", "timesteps", "keep"):
        assert torch.equal(getattr(plain, name), getattr(offset, name)), name


def test_an_input_perturbation_moves_the_input_and_not_what_is_asked_for(parts):
    plain, perturbed = _draw((5, 9)), _draw((5, 9), input_perturbation=0.1)
    assert torch.equal(plain.noise, perturbed.noise)
    assert abs(float(perturbed.perturbation.std()) - 0.1) < 0.01
    clean = torch.randn_like(plain.noise)
    noisy, target = _objective(parts).noised(clean, plain.noise, plain.timesteps)
    moved, same = _objective(parts).noised(clean, plain.noise, plain.timesteps, perturbed.perturbation)
    assert torch.equal(same, target)
    alpha = parts.scheduler.alphas_cumprod[plain.timesteps].view(-1, 1, 1, 1)
    assert torch.allclose(moved - noisy, (1 - alpha).sqrt() * perturbed.perturbation, atol=1e-5)


@pytest.mark.parametrize("prediction", ["v_prediction", "epsilon"])
def test_snr_gamma_weighs_every_row_by_its_own_timestep(tiny_base, features, prediction):
    parts = load_parts(str(tiny_base))
    parts.scheduler.register_to_config(prediction_type=prediction)
    draws = _draws()
    plain = _objective(parts).losses(Recorder(), torch.float32, features, draws)
    weighed = _objective(parts, snr_gamma=5.0).losses(Recorder(), torch.float32, features, draws)
    weights = []
    for timestep in draws.timesteps.tolist():
        alpha = float(torch.cumprod(1 - torch.linspace(0.00085**0.5, 0.012**0.5, 1000) ** 2, 0)[timestep])
        snr = alpha / (1 - alpha)
        weights.append(min(snr, 5.0) / (snr + (prediction == "v_prediction")))
    assert weights[0] == weights[2] < 0.005 and 0 < weights[3] < (0.01 if prediction == "v_prediction" else 1.01)
    assert torch.isclose(weighed["loss_source"], plain["loss_source"] * weights[0], rtol=1e-3)
    _, target = _objective(parts).noised(features.gt, draws.noise[1::2], draws.timesteps[1::2])
    errors = target.square().mean(dim=(1, 2, 3))  # the recorder answers zeros
    expected = (errors * torch.tensor(weights[1::2])).mean()
    assert torch.isclose(weighed["loss_target"], expected, rtol=1e-3)
