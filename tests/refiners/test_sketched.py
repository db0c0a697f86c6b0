"""A refiner that trains from latents: its encoders are known by their files, which are told apart and never loaded."""

import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from refiner_ds.errors import UserError
from refiner_ds.refiners.unclip import parts as parts_module
from refiner_ds.refiners.unclip.options import Recipe
from refiner_ds.refiners.unclip.refiner import ENCODERS, UnclipRefiner

FILES = {"vae": "vae/diffusion_pytorch_model.safetensors", "image_encoder": "image_encoder/model.safetensors"}


@pytest.fixture
def copy(tiny_base, tmp_path):
    """The tiny base in a folder of its own, for a test to change."""
    return shutil.copytree(tiny_base, tmp_path / "copy")


def rewrite(path, change):
    """Writes a file of weights again, each changed by name."""
    save_file(dict(change(name, tensor) for name, tensor in load_file(path).items()), path)


def test_encoders_are_told_apart_without_being_loaded(tiny_base, copy, monkeypatch):
    loaded = UnclipRefiner(str(tiny_base)).encoders_fingerprint
    read, load = [], parts_module.load_network
    monkeypatch.setattr(parts_module, "load_network", lambda *given: read.append(given[2]) or load(*given))
    refiner = UnclipRefiner(str(tiny_base), has_encoders=False)
    assert refiner.encoders_fingerprint == loaded
    assert not set(ENCODERS) & set(read) and "unet" in read
    rewrite(copy / FILES["image_encoder"], lambda name, tensor: (name, tensor * 1.5))
    assert UnclipRefiner(str(copy), has_encoders=False).encoders_fingerprint != loaded


def test_files_in_another_precision_or_of_old_names_are_told_apart_as_when_loaded(copy):
    rewrite(copy / FILES["vae"], lambda name, tensor: (name, tensor.half()))
    rewrite(copy / FILES["image_encoder"], lambda name, tensor: (name, tensor.half()))
    loaded = UnclipRefiner(str(copy)).encoders_fingerprint
    assert UnclipRefiner(str(copy), has_encoders=False).encoders_fingerprint == loaded
    rewrite(copy / FILES["vae"], lambda name, tensor: (name.replace("to_q", "query").replace("to_k", "key"), tensor))
    assert UnclipRefiner(str(copy)).encoders_fingerprint == loaded
    assert UnclipRefiner(str(copy), has_encoders=False).encoders_fingerprint == loaded


def test_without_encoders_it_is_placed_and_set_up_for_training(tiny_base):
    refiner = UnclipRefiner(str(tiny_base), has_encoders=False)
    assert refiner.crop_factor == UnclipRefiner(str(tiny_base)).crop_factor
    refiner.leave_out_encoders()
    refiner.place(torch.device("cpu"), torch.float32)
    refiner.prepare_training(Recipe())


def test_a_base_without_the_encoders_weights_is_refused_all_the_same(copy):
    (copy / FILES["vae"]).unlink()
    with pytest.raises(
        UserError, match=r"its vae cannot be loaded \(there is no diffusion_pytorch_model.safetensors\)"
    ):
        UnclipRefiner(str(copy), has_encoders=False)
