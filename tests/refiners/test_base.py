"""Base checkpoints: in the layout that diffusers loads, with the real shapes if asked for, and refused in words."""

import json
import shutil

import numpy as np
import pytest
import torch
from diffusers import StableUnCLIPImg2ImgPipeline
from PIL import Image

from refiner_ds.errors import UserError
from refiner_ds.refiners.unclip.base import FULL, FULL_ENCODERS, TINY, _text_config, _unet, _vae, _vision_config
from refiner_ds.refiners.unclip.parts import load_parts
from refiner_ds.refiners.unclip.portable.frozen_encoders import Encoders
from refiner_ds.refiners.unclip.portable.mutual_attention import make_refiner
from refiner_ds.refiners.unclip.vae_training import reconstruction_psnr, train_vae


def test_diffusers_loads_the_tiny_base_and_samples_from_it(tiny_base):
    pipeline = StableUnCLIPImg2ImgPipeline.from_pretrained(tiny_base)
    pipeline.set_progress_bar_config(disable=True)
    picture = pipeline(
        Image.new("RGB", (64, 64)), prompt="a street", num_inference_steps=2, height=32, width=32
    ).images[0]
    assert picture.size == (32, 32)


def test_the_full_base_has_the_published_numbers_of_parameters():
    with torch.device("meta"):
        unet = make_refiner(_unet(FULL))
        vae = _vae(FULL)
    assert sum(p.numel() for p in unet.parameters()) == 870_184_644
    assert sum("attn1" in name for name in unet.attn_processors) == 16
    assert sum(p.numel() for p in vae.parameters()) == 83_653_863
    assert (_text_config(FULL).hidden_size, _vision_config(FULL).projection_dim) == (1024, 1024)


def test_full_encoders_are_those_of_the_full_base_before_the_unet_of_the_tiny_one():
    with torch.device("meta"):
        vae, network, tiny = _vae(FULL_ENCODERS), make_refiner(_unet(FULL_ENCODERS)), make_refiner(_unet(TINY))
    assert sum(p.numel() for p in vae.parameters()) == 83_653_863
    assert _vision_config(FULL_ENCODERS).to_dict() == _vision_config(FULL).to_dict()
    differing = {name: p.shape for name, p in tiny.named_parameters() if p.shape != network.state_dict()[name].shape}
    assert differing == {"class_embedding.linear_1.weight": (256, 64)}  # it takes the longer embedding


def test_training_the_vae_makes_it_reconstruct_and_sets_unit_variance():
    torch.manual_seed(0)
    vae = _vae(TINY)
    low = torch.rand(12, 3, 5, 5)
    pictures = (torch.nn.functional.interpolate(low, 80, mode="bicubic").clamp(0, 1) * 255).to(torch.uint8)
    before = reconstruction_psnr(vae, pictures[:2])
    after = train_vae(vae, list(pictures), 60, 0)
    assert after > before + 1.5
    latents = vae.encode(pictures[1:2].float() / 127.5 - 1).latent_dist.mode() * vae.config.scaling_factor
    assert 0.5 < float(latents.std()) < 2


@torch.no_grad()
def test_the_embedding_is_the_one_that_the_checkpoints_own_processor_gives(tiny_base):
    parts = load_parts(str(tiny_base))
    low = np.random.default_rng(0).integers(0, 256, (6, 9, 3), dtype=np.uint8)
    picture = Image.fromarray(low).resize((200, 120), Image.Resampling.BICUBIC)
    pixels = parts.feature_extractor(picture, return_tensors="pt").pixel_values
    expected = parts.image_encoder(pixels).image_embeds
    found = Encoders(parts).embedding(torch.from_numpy(np.array(picture)).permute(2, 0, 1)[None])
    assert torch.nn.functional.cosine_similarity(expected, found).item() > 0.9999
    assert torch.allclose(expected, found, atol=2e-2)


@torch.no_grad()
def test_latents_are_the_scaled_mode_and_come_back_as_pictures(tiny_base):
    parts = load_parts(str(tiny_base))
    encoder = Encoders(parts)
    pictures = torch.randint(0, 256, (1, 3, 32, 48), dtype=torch.uint8)
    latents = encoder.latents(pictures)
    mode = parts.vae.encode(pictures.float() / 127.5 - 1).latent_dist.mode()
    assert torch.allclose(latents, mode * parts.vae.config.scaling_factor, atol=1e-5)
    assert encoder.pictures(latents).shape == (1, 3, 32, 48)


@pytest.fixture
def broken(tiny_base, tmp_path):
    return shutil.copytree(tiny_base, tmp_path / "broken")


def test_a_base_that_lacks_a_part_names_it(broken):
    shutil.rmtree(broken / "image_normalizer")
    with pytest.raises(UserError, match=r"without image_normalizer.*stable-diffusion-2-1-unclip"):
        load_parts(str(broken))


def test_a_base_whose_weights_are_gone_is_told_in_one_sentence(broken):
    next((broken / "vae").glob("*.safetensors")).unlink()
    with pytest.raises(UserError, match=r"cannot be loaded .*; download, make or export it again"):
        load_parts(str(broken))


def test_parts_that_do_not_fit_are_told_with_both_dimensions(broken):
    config = broken / "unet" / "config.json"
    content = json.loads(config.read_text())
    content["projection_class_embeddings_input_dim"] = 1536
    config.write_text(json.dumps(content))
    with pytest.raises(UserError, match=r"1536.*64.*do not fit"):
        load_parts(str(broken))


def test_a_folder_of_something_else_and_a_missing_one_are_refused(tmp_path):
    with pytest.raises(UserError, match="no diffusers checkpoint"):
        load_parts(str(tmp_path))
    with pytest.raises(UserError, match="is no folder"):
        load_parts(str(tmp_path / "nowhere"))
