"""A base is told whole or not from the heads and sizes of its files."""

import os
import shutil

import pytest
import torch

from refiner_ds.errors import UserError
from refiner_ds.refiners.unclip_files import cached_folder, look_whole


@pytest.fixture
def base(tiny_base, tmp_path):
    """A copy to spoil; a file must be replaced, as its bytes are those of `tiny_base`."""
    return shutil.copytree(tiny_base, tmp_path / "base", copy_function=os.link)


def cut(path, keep):
    content = path.read_bytes()[:keep]
    path.unlink()
    path.write_bytes(content)


def test_a_whole_base_has_a_digest_and_the_number_of_weights_to_train(base, tiny_base):
    whole = look_whole("base", base, None)
    assert whole == look_whole("base", tiny_base, None)
    with (base / "unet/diffusion_pytorch_model.safetensors").open("rb") as file:
        size = os.fstat(file.fileno()).st_size - 8 - int.from_bytes(file.read(8), "little")
    assert whole.parameters == size // 4


@pytest.mark.parametrize("keep", [0, 5, 2000, 50_000])
@pytest.mark.parametrize("part", ["unet/diffusion_pytorch_model", "text_encoder/model"])
def test_a_weight_file_that_was_cut_short_is_named(base, part, keep):
    cut(base / f"{part}.safetensors", keep)
    with pytest.raises(UserError, match=rf"has {part}.safetensors .*(cut short|bytes).*; download"):
        look_whole("base", base, None)


@pytest.mark.parametrize(
    "name", ["model_index.json", "vae/config.json", "tokenizer", "image_encoder/model.safetensors"]
)
def test_what_is_missing_is_named(base, name):
    place = base / name
    shutil.rmtree(place) if place.is_dir() else place.unlink()
    with pytest.raises(UserError, match=rf"{name.split('/')[0]}.*; download, make or export it again"):
        look_whole("base", base, None)


def test_a_bin_file_that_was_cut_short_is_named_too(base):
    (base / "vae/diffusion_pytorch_model.safetensors").unlink()
    path = base / "vae/diffusion_pytorch_model.bin"
    torch.save({"weight": torch.zeros(1000)}, path)
    assert look_whole("base", base, None).parameters
    cut(path, 2000)
    with pytest.raises(UserError, match=r"vae/diffusion_pytorch_model.bin cut short at 2000 bytes"):
        look_whole("base", base, None)


def test_other_weights_are_another_digest(base):
    before = look_whole("base", base, None).digest
    path = base / "unet/diffusion_pytorch_model.safetensors"
    content = bytearray(path.read_bytes())
    content[-4:] = b"\1\2\3\4"
    path.unlink()
    path.write_bytes(content)
    assert look_whole("base", base, None).digest != before


def test_a_hub_id_that_is_not_here_is_no_fault_and_no_folder_is_one(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert cached_folder("nobody/nothing-of-this-name", None) is None
    with pytest.raises(UserError, match="is no folder here"):
        cached_folder(str(tmp_path / "none"), None)
