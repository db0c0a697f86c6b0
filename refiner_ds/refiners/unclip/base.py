"""Base checkpoints made on the spot in the layout of stable-diffusion-2-1-unclip: tiny, or of the real shapes."""

import json
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from diffusers import AutoencoderKL, DDPMScheduler, PNDMScheduler, StableUnCLIPImg2ImgPipeline, UNet2DConditionModel
from diffusers.pipelines.stable_diffusion.stable_unclip_image_normalizer import StableUnCLIPImageNormalizer
from transformers import (
    CLIPImageProcessor,
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTokenizer,
    CLIPVisionConfig,
    CLIPVisionModelWithProjection,
)

from refiner_ds.refiners.protocol import Sampling
from refiner_ds.refiners.unclip.parts import Parts, write_sampling


@dataclass(frozen=True)
class Shapes:
    """Sizes of all parts; of the UNet by level: channels, whether there is attention, and its heads."""

    unet_channels: tuple[int, ...]
    unet_attends: tuple[bool, ...]
    unet_layers: int
    heads: tuple[int, ...]
    vae_channels: tuple[int, ...]
    vae_layers: int
    groups: int
    text_width: int
    text_layers: int
    text_heads: int
    vocabulary: int
    vision_width: int
    vision_layers: int
    vision_heads: int
    vision_patch: int
    vision_size: int
    embedding: int
    sample_size: int
    timestep_spacing: str
    sampling: Sampling


FULL = Shapes(
    unet_channels=(320, 640, 1280, 1280), unet_attends=(True, True, True, False), unet_layers=2, heads=(5, 10, 20, 20),
    groups=32, sample_size=96,
    vae_channels=(128, 256, 512, 512), vae_layers=2,
    text_width=1024, text_layers=23, text_heads=16, vocabulary=49408,
    vision_width=1280, vision_layers=32, vision_heads=16, vision_patch=14, vision_size=224, embedding=1024,
    timestep_spacing="leading", sampling=Sampling(),
)  # fmt: skip
"""Stable Diffusion 2.1 unCLIP: 870 M parameters in the UNet with its 8 input channels, ViT-H as image encoder."""

TINY = Shapes(
    unet_channels=(64, 96, 128, 128), unet_attends=(False, True, True, False), unet_layers=1, heads=(2, 3, 4, 4),
    groups=8, sample_size=32,
    vae_channels=(16, 32, 64), vae_layers=1,
    text_width=32, text_layers=2, text_heads=2, vocabulary=514,
    vision_width=32, vision_layers=2, vision_heads=2, vision_patch=8, vision_size=64, embedding=32,
    timestep_spacing="trailing", sampling=Sampling(num_inference_steps=1, guidance_scale=1.0),
)  # fmt: skip
"""For a CPU. The VAE halves the sides twice, not three times: at four channels it could not show a street otherwise.
The UNet's top level does without attention, which would take more than half of all time. One sampling step from the
very last timestep gives the mean of what the picture may be; more steps would add detail that minutes of training have
not taught it. Its text encoder has never read a word, so there is nothing that guidance could lead to."""

FULL_ENCODERS = replace(
    TINY,
    groups=FULL.groups,
    vae_channels=FULL.vae_channels, vae_layers=FULL.vae_layers,
    vision_width=FULL.vision_width, vision_layers=FULL.vision_layers, vision_heads=FULL.vision_heads,
    vision_patch=FULL.vision_patch, vision_size=FULL.vision_size, embedding=FULL.embedding,
)  # fmt: skip
"""The tiny UNet behind the real VAE and ViT-H: a CPU can train it, and sees what encoding pictures costs."""


def make_parts(shapes: Shapes, seed: int, folder: Path) -> Parts:
    """All parts with random weights; the tokenizer's files go into `folder`/tokenizer, from where it is loaded."""
    torch.manual_seed(seed)
    _write_tokenizer(folder / "tokenizer")
    return Parts(
        vae=_vae(shapes),
        text_encoder=CLIPTextModel(_text_config(shapes)),
        tokenizer=CLIPTokenizer.from_pretrained(folder / "tokenizer"),
        unet=_unet(shapes),
        scheduler=PNDMScheduler(
            beta_start=0.00085,
            beta_end=0.012,
            beta_schedule="scaled_linear",
            prediction_type="v_prediction",
            skip_prk_steps=True,
            set_alpha_to_one=False,
            steps_offset=1,
            timestep_spacing=shapes.timestep_spacing,
        ),
        feature_extractor=CLIPImageProcessor(
            size={"shortest_edge": shapes.vision_size},
            crop_size={"height": shapes.vision_size, "width": shapes.vision_size},
        ),
        image_encoder=CLIPVisionModelWithProjection(_vision_config(shapes)),
        image_normalizer=StableUnCLIPImageNormalizer(embedding_dim=shapes.embedding),
        image_noising_scheduler=DDPMScheduler(beta_schedule="squaredcos_cap_v2"),
        sampling=shapes.sampling,
    )


def save_base(parts: Parts, folder: Path) -> None:
    """Writes the folder that `StableUnCLIPImg2ImgPipeline.from_pretrained` loads, in fp32 safetensors.

    How to sample is in its model_index.json too, where it differs from what is usual: of the full base nothing is.
    """
    StableUnCLIPImg2ImgPipeline(**parts.as_dict()).save_pretrained(folder, safe_serialization=True)
    write_sampling(folder, parts.sampling)


def _unet(shapes: Shapes) -> UNet2DConditionModel:
    return UNet2DConditionModel(
        sample_size=shapes.sample_size,
        block_out_channels=shapes.unet_channels,
        down_block_types=tuple("CrossAttnDownBlock2D" if attends else "DownBlock2D" for attends in shapes.unet_attends),
        up_block_types=tuple("CrossAttnUpBlock2D" if attends else "UpBlock2D" for attends in shapes.unet_attends[::-1]),
        layers_per_block=shapes.unet_layers,
        attention_head_dim=shapes.heads,  # the number of heads, by a naming that diffusers keeps for old checkpoints
        cross_attention_dim=shapes.text_width,
        norm_num_groups=shapes.groups,
        use_linear_projection=True,
        class_embed_type="projection",
        projection_class_embeddings_input_dim=2 * shapes.embedding,
    )


def _vae(shapes: Shapes) -> AutoencoderKL:
    levels = len(shapes.vae_channels)
    return AutoencoderKL(
        block_out_channels=shapes.vae_channels,
        down_block_types=("DownEncoderBlock2D",) * levels,
        up_block_types=("UpDecoderBlock2D",) * levels,
        layers_per_block=shapes.vae_layers,
        latent_channels=4,
        norm_num_groups=shapes.groups,
        sample_size=shapes.sample_size * 2 ** (levels - 1),
    )


def _text_config(shapes: Shapes) -> CLIPTextConfig:
    return CLIPTextConfig(
        vocab_size=shapes.vocabulary,
        hidden_size=shapes.text_width,
        intermediate_size=4 * shapes.text_width,
        num_hidden_layers=shapes.text_layers,
        num_attention_heads=shapes.text_heads,
        hidden_act="gelu",
        bos_token_id=shapes.vocabulary - 2,
        eos_token_id=shapes.vocabulary - 1,
        pad_token_id=shapes.vocabulary - 1,
    )


def _vision_config(shapes: Shapes) -> CLIPVisionConfig:
    return CLIPVisionConfig(
        hidden_size=shapes.vision_width,
        intermediate_size=4 * shapes.vision_width,
        num_hidden_layers=shapes.vision_layers,
        num_attention_heads=shapes.vision_heads,
        image_size=shapes.vision_size,
        patch_size=shapes.vision_patch,
        projection_dim=shapes.embedding,
        hidden_act="gelu",
    )


def _write_tokenizer(folder: Path) -> None:
    """A CLIP tokenizer without merges: every byte is a token, alone or as the end of a word."""
    # byte-level BPE writes a byte as a printable character: itself, or the next free one from 256 on
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    spare = iter(range(256, 512))
    characters = [chr(byte) if byte in printable else chr(next(spare)) for byte in range(256)]
    tokens = [*characters, *(character + "</w>" for character in characters), "<|startoftext|>", "<|endoftext|>"]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "vocab.json").write_text(json.dumps({token: i for i, token in enumerate(tokens)}), encoding="utf-8")
    (folder / "merges.txt").write_text("#version: 0.2\n", encoding="utf-8")
    settings = {
        "tokenizer_class": "CLIPTokenizer",
        "model_max_length": 77,
        "bos_token": "<|startoftext|>",
        "eos_token": "<|endoftext|>",
        "unk_token": "<|endoftext|>",
        "pad_token": "<|endoftext|>",
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(settings, indent=1), encoding="utf-8")
