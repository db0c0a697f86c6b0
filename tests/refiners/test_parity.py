"""Parity: the product against the refiner written a second time (plain.py), intermediate by intermediate.

What each check would miss if it were gone is said at each: the loss alone would hide errors that cancel, and none of
them would show in whether training "works".
"""

import json
import shutil
from contextlib import contextmanager

import pytest
import torch
from safetensors.torch import save_file

from refiner_ds.batch import Batch
from refiner_ds.chance import key_of
from refiner_ds.refiners.protocol import Sampling
from refiner_ds.refiners.unclip.objective import DROPPED, Draws
from refiner_ds.refiners.unclip.options import Recipe
from refiner_ds.refiners.unclip.portable.unclip_refiner_pipeline import NEGATIVE_PROMPT, PROMPT
from refiner_ds.refiners.unclip.refiner import UnclipRefiner
from tests.refiners.plain import Plain


@pytest.fixture(scope="module", params=["v_prediction", "epsilon"])
def both(request, tiny_base, tmp_path_factory):
    """The product and its plain double over one perturbed base, predicting velocity or noise, in published spacing."""
    base = shutil.copytree(tiny_base, tmp_path_factory.mktemp("parity") / request.param)
    path = base / "scheduler" / "scheduler_config.json"
    config = {**json.loads(path.read_text()), "prediction_type": request.param, "timestep_spacing": "leading"}
    path.write_text(json.dumps(config))
    torch.manual_seed(4)  # a normalizer that does nothing would hide that it is left out
    statistics = {"mean": torch.randn(1, 32), "std": torch.rand(1, 32) + 0.5}
    save_file(statistics, base / "image_normalizer" / "diffusion_pytorch_model.safetensors")
    refiner = UnclipRefiner(str(base))
    refiner.place(torch.device("cpu"), torch.float32)
    refiner.prepare_training(Recipe())
    torch.manual_seed(5)
    for parameter in refiner.network.parameters():  # else the render's channels and many biases are zero
        parameter.data += 0.03 * torch.randn_like(parameter)
    refiner.network.eval()
    return refiner, Plain(base, refiner.network)


@pytest.fixture(scope="module")
def batch():
    pictures = torch.randint(0, 256, (3, 2, 3, 32, 40), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
    return Batch(*pictures, positions=(3, 8), keys=("a", "b"))


def _draws(keep):
    torch.manual_seed(2)
    return Draws(
        torch.randn(4, 4, 8, 10), torch.randn(2, 32), torch.tensor([0, 37, 0, 981]), torch.tensor([keep, (1.0,) * 3])
    )


def _close(found, expected):
    torch.testing.assert_close(found, expected, rtol=2e-5, atol=2e-5)


@contextmanager
def _attention_outputs(unet):
    """What every attention of the network gives while it runs once, by the layer's name."""
    outputs = {}
    hooks = [
        module.register_forward_hook(lambda module, args, output, name=name: outputs.update({name: output.detach()}))
        for name, module in unet.named_modules()
        if name.endswith((".attn1", ".attn2"))
    ]
    yield outputs
    for hook in hooks:
        hook.remove()


@pytest.mark.parametrize("case", [*range(7), None], ids=lambda case: "kept" if case is None else f"dropout {case}")
def test_every_intermediate_of_a_micro_step(both, batch, case):
    refiner, plain = both
    draws = _draws((1.0, 1.0, 1.0) if case is None else tuple(float(not dropped) for dropped in DROPPED[case]))
    features, objective = refiner.encode(batch), refiner._objective
    asked = {}
    hook = refiner.network.register_forward_pre_hook(
        lambda m, args, kwargs: asked.update(rows=args[0], **kwargs), with_kwargs=True
    )
    with _attention_outputs(refiner.network) as attended:
        losses = objective.losses(refiner.network, torch.float32, features, draws)
    hook.remove()
    with _attention_outputs(plain.unet) as expected:
        seen = plain.micro_step(batch.render, batch.gt, batch.cond, draws)
    for i, latents in enumerate(seen["latents"]):  # a wrong scaling factor, or sampling instead of the mode
        for view, latent in latents.items():
            _close(getattr(features, view)[i], latent)
        _close(features.embedding[i], plain.embedding(batch.cond[i]))
    _close(asked["class_labels"], torch.stack(seen["class"]))  # sines before cosines, dropout of only one half
    _close(asked["rows"][:, :4], torch.stack(seen["noisy"]))  # coefficients of the wrong row or precision
    _, target = objective.noised(asked["rows"][:, :4] * 0, draws.noise, draws.timesteps)
    if plain.prediction == "epsilon":  # a velocity where the checkpoint predicts noise
        _close(target, torch.stack(seen["target"]))
    assert attended.keys() == expected.keys() and len(attended) == len(refiner.network.attn_processors)
    for name, output in attended.items():  # a layer left out, the halves of keys swapped, heads mixed
        _close(output, expected[name])
    for name in ("loss_source", "loss_target", "loss"):  # the branches taken for each other, or weighted
        _close(losses[name], seen[name])


def test_the_gradients_of_all_parameters(both, batch):
    """Without it a detached source row, or weights that only one branch trains, would go unseen."""
    refiner, plain = both
    draws = _draws((1.0, 1.0, 1.0))
    features = refiner.encode(batch)
    refiner._objective.losses(refiner.network, torch.float32, features, draws)["loss"].backward()
    plain.micro_step(batch.render, batch.gt, batch.cond, draws)["loss"].backward()
    theirs = dict(plain.unet.named_parameters())
    for name, parameter in refiner.network.named_parameters():
        scale = theirs[name].grad.abs().max().item()
        torch.testing.assert_close(
            parameter.grad, theirs[name].grad, rtol=1e-3, atol=2e-4 * scale + 1e-9, msg=lambda m, n=name: f"{n}: {m}"
        )
        parameter.grad = theirs[name].grad = None


def test_the_twenty_step_picture(both, batch):
    """Without it a source row that drifts, guidance between the wrong halves, or a sampler off by one step."""
    refiner, plain = both
    render, cond = batch.render[:1], batch.cond[:1]
    found = refiner.repair(render, cond[:, None], [6], Sampling(20, 10.0))
    chance = torch.Generator().manual_seed(key_of(6, "repair"))
    start, noise = torch.randn(4, 8, 10, generator=chance), torch.randn(32, generator=chance)
    latent = plain.sample(render[0], cond[0], noise, start, 20, 10.0, (NEGATIVE_PROMPT, PROMPT))
    with torch.no_grad():
        picture = plain.vae.decode(latent[None] / plain.vae.config.scaling_factor).sample
    expected = ((picture.clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)
    assert expected.float().std() > 1
    assert (found.int() - expected.int()).abs().max() <= 1
