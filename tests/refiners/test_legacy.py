"""Importing what GaussianRefiner's own training saved: the weights arrive exactly; what is none is told in words."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
import torch
from diffusers import UNet2DConditionModel
from safetensors.torch import save_file
from torch import Tensor

from refiner_ds.cli import main
from refiner_ds.refiners.unclip.refiner import UnclipRefiner


@pytest.fixture(scope="module")
def trained(tiny_base) -> dict[str, Tensor]:
    """Weights of a refiner's UNet, none as in the base."""
    weights = UnclipRefiner(str(tiny_base)).network.state_dict()
    generator = torch.Generator().manual_seed(0)
    return {name: tensor + 0.01 * torch.randn(tensor.shape, generator=generator) for name, tensor in weights.items()}


@pytest.fixture
def legacy(tiny_base, trained, tmp_path) -> Path:
    """The folder as the public script writes it: weights of 8 input channels, pickled, beside a config that says 4."""
    (tmp_path / "legacy" / "unet").mkdir(parents=True)
    config = json.loads((tiny_base / "unet" / "config.json").read_text())
    assert config["in_channels"] == 4 and trained["conv_in.weight"].shape[1] == 8
    (tmp_path / "legacy" / "unet" / "config.json").write_text(json.dumps(config))
    torch.save(trained, tmp_path / "legacy" / "unet" / "diffusion_pytorch_model.bin")
    return tmp_path / "legacy"


@pytest.fixture
def imports(tiny_base, tmp_path, capsys) -> Callable[[Path], tuple[int, str]]:
    """`imports(legacy)` runs the verb: its exit code, and the one line that it says."""

    def run(legacy: Path) -> tuple[int, str]:
        given = [str(legacy), str(tmp_path / "out"), "--pretrained_model_name_or_path", str(tiny_base)]
        code = main(["import-legacy", *given])
        output = capsys.readouterr()
        (line,) = (output.err if code else output.out).splitlines()
        assert (tmp_path / "out").exists() == (code == 0)
        return code, line

    return run


def assert_imported(out: Path, expected: Mapping[str, Tensor]) -> None:
    """The folder is a refiner's with exactly these weights, for our loader and for diffusers'."""
    found = UnclipRefiner(str(out)).network.state_dict()
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], expected[name]) for name in expected)
    assert {tensor.dtype for tensor in found.values()} == {torch.float32}
    unet = UNet2DConditionModel.from_pretrained(out / "unet")
    assert unet.config.in_channels == 8
    assert torch.equal(unet.conv_in.weight, expected["conv_in.weight"])


def test_what_the_public_script_saved_becomes_a_refiner(legacy, trained, imports, tmp_path):
    code, line = imports(legacy)
    assert code == 0
    out = tmp_path / "out"
    assert line == (
        f"refiner in {out}: repair with --model {out}, or train it further with --pretrained_model_name_or_path {out}"
    )
    assert_imported(out, trained)


@pytest.mark.parametrize("place", ["unet", "unet/diffusion_pytorch_model.bin"])
def test_the_unet_folder_and_the_file_itself_can_be_named(legacy, trained, imports, tmp_path, place):
    assert imports(legacy / place)[0] == 0
    assert_imported(tmp_path / "out", trained)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_names_with_a_prefix_half_precision_and_safetensors_are_taken(legacy, trained, imports, tmp_path, dtype):
    half = {f"module.{name}": tensor.to(dtype) for name, tensor in trained.items()}
    save_file(half, legacy / "unet" / "diffusion_pytorch_model.safetensors")
    (legacy / "unet" / "diffusion_pytorch_model.bin").unlink()
    assert imports(legacy)[0] == 0
    assert_imported(tmp_path / "out", {name: tensor.to(dtype).float() for name, tensor in trained.items()})


def spoil(kind: str, weights: dict[str, Tensor], tiny_base: Path) -> object:
    """What is saved instead of the weights."""
    name = "mid_block.resnets.0.conv1.weight"
    if kind == "nan":
        weights[name] = weights[name].clone()
        weights[name][0, 0, 0, 0] = float("nan")
    elif kind == "infinity":
        weights[name] = weights[name].half().mul(torch.inf)
    elif kind == "missing":
        del weights[name]
    elif kind == "extra":
        weights["controlnet.weight"] = torch.zeros(1)
    elif kind == "shape":
        weights["class_embedding.linear_1.weight"] = torch.zeros(256, 48)
    elif kind == "base":
        return UNet2DConditionModel.from_pretrained(tiny_base, subfolder="unet").state_dict()
    elif kind == "nested":
        return {"state_dict": weights, "step": 3}
    elif kind == "list":
        return list(weights.values())
    elif kind == "object":
        return {"model": Path("."), **weights}
    return weights


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("nan", ": mid_block.resnets.0.conv1.weight holds NaN or infinity, so the refiner would paint nothing else; "),
        ("infinity", ": mid_block.resnets.0.conv1.weight holds NaN or infinity"),
        ("missing", " lacks 1 weights of the refiner that "),
        ("extra", " and has 1 that it does not know (controlnet.weight), so it is of another network; name the UNet"),
        ("shape", ": 1 weights are shaped otherwise than those of "),
        (
            "shape",
            ", such as class_embedding.linear_1.weight (256x48, not 256x64), so it was trained from another base; ",
        ),
        ("base", " is a UNet of 4 input channels, which has never seen a render, so it is no refiner (those have 8); "),
        ("nested", " is no dict of tensors by name, so it is no network's weights; save the UNet's state_dict() alone"),
        ("list", " is no dict of tensors by name"),
        ("object", " holds other things than tensors, which could run code when they are loaded, or is no file of "),
    ],
)
def test_weights_that_are_no_refiners(legacy, trained, tiny_base, imports, kind, words):
    torch.save(spoil(kind, dict(trained), tiny_base), legacy / "unet" / "diffusion_pytorch_model.bin")
    code, line = imports(legacy)
    assert code == 2 and words in line and str(legacy) in line


@pytest.mark.parametrize("name", ["diffusion_pytorch_model.bin", "diffusion_pytorch_model.safetensors"])
def test_files_that_cannot_be_read(legacy, imports, name):
    file = legacy / "unet" / name
    content = (legacy / "unet" / "diffusion_pytorch_model.bin").read_bytes()
    for spoiled in (content[: len(content) // 2], b"", b"version https://git-lfs.github.com/spec/v1\n"):
        file.write_bytes(spoiled)
        code, line = imports(legacy)
        assert code == 2
        assert f"{file} cannot be read (" in line or f"{file} holds other things than tensors" in line


def test_a_folder_without_weights_and_one_that_is_not_there(legacy, imports, tmp_path):
    (legacy / "unet" / "diffusion_pytorch_model.bin").unlink()
    for place in (legacy, legacy / "unet", tmp_path / "nowhere"):
        code, line = imports(place)
        assert code == 2
        assert (
            f"{place} holds no diffusion_pytorch_model.safetensors or diffusion_pytorch_model.bin, in unet/ or" in line
        )


def test_an_output_folder_that_is_taken(legacy, tiny_base, capsys):
    assert main(["import-legacy", str(legacy), str(legacy), "--pretrained_model_name_or_path", str(tiny_base)]) == 2
    assert "is not empty, and an import is never mixed; name another folder." in capsys.readouterr().err
