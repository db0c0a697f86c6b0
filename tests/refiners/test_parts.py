"""Loading the parts of a checkpoint: variants, old names, always fp32; what is broken is told in one sentence."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from diffusers import StableUnCLIPImg2ImgPipeline
from safetensors.torch import load_file, save_file

from refiner_ds.errors import UserError
from refiner_ds.refiners.protocol import Sampling
from refiner_ds.refiners.unclip.base import TINY, make_parts, save_base
from refiner_ds.refiners.unclip.parts import FORMAT, load_parts, write_sampling
from refiner_ds.refiners.unclip.weights import NETWORKS, first_not_finite


@pytest.fixture
def copy(tiny_base, tmp_path) -> Path:
    """The tiny base in a folder of its own, for a test to spoil."""
    return shutil.copytree(tiny_base, tmp_path / "copy")


def change(path: Path, **entries: object) -> None:
    """Changes entries of a JSON file; None takes one out."""
    content = {**json.loads(path.read_text()), **entries}
    path.write_text(json.dumps({key: value for key, value in content.items() if value is not None}))


def weight_file(folder: Path, part: str) -> Path:
    """The one weight file of a part."""
    (file,) = (folder / part).glob("*.safetensors")
    return file


def respell(folder: Path, part: str, **changed: torch.Tensor | None) -> None:
    """Changes tensors of a part's file; None takes one out."""
    file = weight_file(folder, part)
    weights = {**load_file(file), **{name.replace("__", "."): tensor for name, tensor in changed.items()}}
    save_file({name: tensor for name, tensor in weights.items() if tensor is not None}, file)


def refusal(base: Path, **options: str) -> str:
    """The sentence in which loading is refused."""
    with pytest.raises(UserError) as caught:
        load_parts(str(base), **options)
    (sentence,) = str(caught.value).splitlines()
    assert sentence.endswith(".")
    return sentence


def as_variant(folder: Path, variant: str) -> None:
    """Renames all weight files to a variant's, in half precision."""
    for part in NETWORKS:
        file = weight_file(folder, part)
        save_file({name: tensor.half() for name, tensor in load_file(file).items()}, file)
        file.rename(file.with_name(f"{file.stem}.{variant}.safetensors"))


def test_a_variant_is_taken_of_every_part_and_computed_with_in_fp32(copy, tiny_base):
    as_variant(copy, "fp16")
    parts, plain = load_parts(str(copy), variant="fp16"), load_parts(str(tiny_base))
    for name in NETWORKS:
        found, expected = getattr(parts, name).state_dict(), getattr(plain, name).state_dict()
        assert {tensor.dtype for tensor in found.values()} == {torch.float32}
        assert all(torch.equal(found[key], expected[key].half().float()) for key in expected)


def test_a_variant_that_a_part_lacks(copy):
    as_variant(copy, "fp16")
    words = (
        "its vae has no diffusion_pytorch_model.safetensors, only the variant fp16; say that it is to be taken, with "
    )
    assert words in refusal(copy)
    (copy / "text_encoder" / "model.fp16.safetensors").rename(copy / "text_encoder" / "model.safetensors")
    words = "variant fp16 of its text_encoder is not there (no model.fp16.safetensors), and the parts of a model are of"
    assert words in refusal(copy, variant="fp16")


def test_a_revision_of_a_folder(tiny_base):
    assert f"revision v1 names a state of a hub id, but model {tiny_base} is a folder" in refusal(
        tiny_base, revision="v1"
    )


def test_weights_in_the_names_and_formats_of_years_ago_are_taken(copy, tiny_base):
    file = weight_file(copy, "vae")
    weights = load_file(file)
    for new, old in {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}.items():
        weights = {name.replace(f".{new}.", f".{old}."): tensor for name, tensor in weights.items()}
    torch.save(weights, file.with_suffix(".bin"))
    file.unlink()
    assert any(".query." in name for name in weights)
    file = weight_file(copy, "text_encoder")
    prefixed = {f"text_model.{name.removeprefix('text_model.')}": tensor for name, tensor in load_file(file).items()}
    torch.save(prefixed | {"text_model.embeddings.position_ids": torch.arange(77)[None]}, copy / "pytorch_model.bin")
    (copy / "pytorch_model.bin").rename(copy / "text_encoder" / "pytorch_model.bin")
    file.unlink()
    parts, plain = load_parts(str(copy)), load_parts(str(tiny_base))
    for part in ("vae", "text_encoder"):
        found, expected = getattr(parts, part).state_dict(), getattr(plain, part).state_dict()
        assert found.keys() == expected.keys()
        assert all(torch.equal(found[name], expected[name]) for name in expected)


def test_another_image_encoder_loads_where_all_fits_it(tmp_path, tiny_base):
    shapes = replace(TINY, embedding=24, vision_width=48, vision_heads=3)
    save_base(make_parts(shapes, 0, tmp_path / "small"), tmp_path / "small")
    parts = load_parts(str(tmp_path / "small"))
    assert parts.image_encoder.visual_projection.weight.shape == (24, 48)
    assert parts.unet.config.projection_class_embeddings_input_dim == 48
    shutil.rmtree(tmp_path / "small" / "image_encoder")
    shutil.copytree(tiny_base / "image_encoder", tmp_path / "small" / "image_encoder")
    words = "unet's projection_class_embeddings_input_dim is 48 and twice the image_encoder's projection_dim is 64, so "
    assert words in refusal(tmp_path / "small")


@pytest.mark.parametrize(
    ("part", "key", "value", "words"),
    [
        ("unet", "out_channels", 8, "unet's out_channels is 8 and vae's latent_channels is 4, so the parts do not fit"),
        ("unet", "cross_attention_dim", 48, "unet's cross_attention_dim is 48 and text_encoder's hidden_size is 32"),
        ("image_normalizer", "embedding_dim", 8, "embedding_dim is 8 and image_encoder's projection_dim is 32"),
        ("image_encoder", "projection_dim", None, "its image_encoder cannot be loaded (there is no 'projection_dim')"),
        ("unet", "norm_num_groups", 0, "its unet cannot be loaded ("),
        ("image_encoder", "patch_size", "large", "its image_encoder cannot be loaded ("),
        ("unet", "block_out_channels", [64, 96, 128, 160], "its unet cannot be loaded (Cannot load  because "),
        (
            *("text_encoder", "intermediate_size", 64),
            "encoder.layers.0.mlp.fc1.bias of its text_encoder is 128 in the file and 64 by its config.json; download",
        ),
    ],
)
def test_dimensions_that_do_not_fit(copy, part, key, value, words):
    change(copy / part / "config.json", **{key: value})
    assert words in refusal(copy)


@pytest.mark.parametrize("part", NETWORKS)
def test_a_part_that_is_missing_or_whose_files_are_spoiled(copy, part):
    file = weight_file(copy, part)
    content = file.read_bytes()
    for spoiled in (content[: len(content) // 2], b"", b"version https://git-lfs.github.com/spec/v1\n"):
        file.write_bytes(spoiled)
        assert f"model {copy}: its {part} cannot be loaded (" in refusal(copy)
    file.unlink()
    assert f"its {part} cannot be loaded (there is no {file.name}); download, make or export it again" in refusal(copy)
    file.with_name("pytorch_model.bin" if file.stem == "model" else f"{file.stem}.bin").write_bytes(content[:100])
    assert f"its {part} cannot be loaded (" in refusal(copy)
    (copy / part / "config.json").write_text("{")
    assert f"its {part} cannot be loaded (" in refusal(copy)
    shutil.rmtree(copy / part)
    assert f"without {part}, so it is no unCLIP checkpoint" in refusal(copy)


@pytest.mark.parametrize("part", ["tokenizer", "scheduler", "feature_extractor", "image_noising_scheduler"])
def test_a_part_without_weights_whose_files_are_gone(copy, part):
    for file in (copy / part).iterdir():
        file.unlink()
    assert f"its {part} cannot be loaded (" in refusal(copy)


@pytest.mark.parametrize("name", ["vocab.json", "merges.txt"])
def test_a_tokenizer_without_its_words_or_with_too_many(copy, name):
    vocabulary = copy / "tokenizer" / "vocab.json"
    (copy / "tokenizer" / "tokenizer.json").unlink(missing_ok=True)
    assert len(load_parts(str(copy)).tokenizer) == TINY.vocabulary
    content = json.loads(vocabulary.read_text())
    vocabulary.write_text(json.dumps({**content, "street</w>": len(content)}))
    assert "its tokenizer knows 515 tokens and its text_encoder 514, so the parts do not fit together" in refusal(copy)
    (copy / "tokenizer" / name).unlink()
    assert "its tokenizer cannot be loaded (there is no vocab.json with merges.txt)" in refusal(copy)


@pytest.mark.parametrize(
    ("part", "name"),
    [
        ("vae", "encoder__conv_in__weight"),
        ("unet", "conv_in__bias"),
        ("image_encoder", "visual_projection__weight"),
        ("image_normalizer", "std"),
    ],
)
def test_weights_that_are_missing_or_not_finite(copy, part, name):
    tensor = load_file(weight_file(copy, part))[name.replace("__", ".")]
    for value in (float("nan"), float("inf"), float("-inf")):
        spoiled = tensor.clone()
        spoiled.view(-1)[-1] = value
        respell(copy, part, **{name: spoiled})
        assert f"{name.replace('__', '.')} of its {part} holds NaN or infinity, so all that comes out" in refusal(copy)
    respell(copy, part, **{name: None})
    assert f"the files of its {part} lack 1 weights ({name.replace('__', '.')}), which would stay" in refusal(copy)


def test_finite_numbers_whose_sum_is_not_are_finite():
    huge = torch.full((4,), 3e38)
    assert first_not_finite({"huge": huge, "whole": torch.arange(3)}) is None
    assert first_not_finite({"huge": huge, "both": torch.tensor([float("inf"), float("-inf")])}) == "both"


def test_how_to_sample_is_in_the_index_where_it_is_unusual(copy):
    assert load_parts(str(copy)).sampling == TINY.sampling == Sampling(1, 1.0)
    index = json.loads((copy / "model_index.json").read_text())
    assert (index["num_inference_steps"], index["guidance_scale"]) == (1, 1.0)
    write_sampling(copy, Sampling(20, 3.0))
    assert load_parts(str(copy)).sampling == Sampling(20, 3.0)
    write_sampling(copy, Sampling())
    assert json.loads((copy / "model_index.json").read_text()).keys() == index.keys() - {
        "num_inference_steps",
        "guidance_scale",
    }
    assert load_parts(str(copy)).sampling == Sampling()
    assert type(StableUnCLIPImg2ImgPipeline.from_pretrained(copy)) is StableUnCLIPImg2ImgPipeline


@pytest.mark.parametrize(
    ("entries", "words"),
    [
        ({"refiner_format": FORMAT + 1}, "is of refiner_format 2 and this refiner_ds reads 1, so a newer one has made"),
        ({"refiner_format": "new"}, "is of refiner_format new and this refiner_ds reads 1"),
        ({"num_inference_steps": 0}, "does not say how to sample (num_inference_steps 0, guidance_scale 1.0"),
        ({"guidance_scale": "much"}, "model_index.json does not say how to sample ("),
        ({"_class_name": ["pipeline", "MyPipeline"], "vae": None}, "is a MyPipeline without vae, so it is no unCLIP"),
        ({"vae": 3}, "is a StableUnCLIPImg2ImgPipeline without vae"),
    ],
)
def test_an_index_that_says_what_cannot_be(copy, entries, words):
    change(copy / "model_index.json", **entries)
    assert words in refusal(copy)


def test_a_class_of_its_own_and_this_format_are_loaded(copy):
    change(copy / "model_index.json", _class_name=["pipeline", "MyPipeline"], refiner_format=FORMAT)
    assert load_parts(str(copy)).sampling == TINY.sampling
