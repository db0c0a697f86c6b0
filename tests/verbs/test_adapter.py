"""Low-rank updates by themselves: with their base they are the refiner that the merged export is."""

import json
import shutil

import pytest
import torch
from diffusers import UNet2DConditionModel
from PIL import Image
from safetensors.torch import load_file

from refiner_ds.cli import main
from refiner_ds.refiners.unclip.adapter import open_refiner
from refiner_ds.refiners.unclip.options import Adaptation
from refiner_ds.refiners.unclip.portable.mutual_attention import make_refiner
from refiner_ds.refiners.unclip.refiner import UnclipRefiner
from tests.checkpoints import trained_weights, write_checkpoint
from tests.verbs.listing import contents

LOW_RANK = Adaptation(trainable="attention", lora_rank=3)


@pytest.fixture(scope="module")
def exports(tiny_base, tmp_path_factory):
    """A folder with a checkpoint's merged export, its adapter, and the adapter exported again."""
    folder = tmp_path_factory.mktemp("low_rank")
    torch.manual_seed(2)
    named = trained_weights(UnclipRefiner(str(tiny_base), adaptation=LOW_RANK))
    weights = {name: weight + 0.1 * torch.randn_like(weight) for name, weight in named.items()}
    run = write_checkpoint(folder, 4, tiny_base, weights, adaptation=LOW_RANK)
    for arguments in (
        [run, folder / "merged"],
        [run, folder / "adapter", "--lora", "adapter"],
        [folder / "adapter", folder / "again"],
    ):
        assert main(["export", *map(str, arguments)]) == 0
    return folder


def test_an_adapter_is_a_small_folder_of_safetensors_that_names_its_base(exports, tiny_base):
    folder = exports / "adapter"
    names = {"pytorch_lora_weights.safetensors", "conv_in.safetensors", "export.json", "README.md"}
    assert {path.name for path in folder.iterdir()} == names
    size, whole = (sum(map(len, contents(exports / name).values())) for name in ("adapter", "merged"))
    assert size < whole / 10
    record = json.loads((folder / "export.json").read_text())
    assert record["base"]["base"] == str(tiny_base) and record["step"] == 4 and record["lora"] == "adapter"
    assert record["base"]["fingerprint"] == UnclipRefiner(str(tiny_base)).base_fingerprint
    assert record["adaptation"]["lora_rank"] == 3
    card = (folder / "README.md").read_text()
    assert "low-rank updates" in card and "--model adapter" in card and "from_pretrained" not in card


def test_diffusers_loads_it_into_the_base_and_computes_what_the_merged_export_does(exports, tiny_base):
    unet = make_refiner(UNet2DConditionModel.from_pretrained(tiny_base, subfolder="unet"))
    unet.load_lora_adapter(exports / "adapter", weight_name="pytorch_lora_weights.safetensors", prefix=None)
    unet.load_state_dict(load_file(exports / "adapter" / "conv_in.safetensors"), strict=False)
    merged = UnclipRefiner(str(exports / "merged")).network.eval()
    torch.manual_seed(0)
    inputs = torch.randn(2, 8, 16, 16), torch.tensor([0, 700]), torch.randn(2, 77, 32)
    labels = torch.randn(2, unet.config.projection_class_embeddings_input_dim)
    with torch.no_grad():
        one, other = (network(*inputs, class_labels=labels).sample for network in (unet.eval(), merged))
    torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


def test_with_its_base_it_has_the_weights_of_the_merged_export_and_merged_later_too(exports, tiny_base):
    merged, again = (UnclipRefiner(str(exports / name)).network.state_dict() for name in ("merged", "again"))
    opened = open_refiner(str(exports / "adapter")).network.state_dict()
    base = UnclipRefiner(str(tiny_base)).network.state_dict()
    assert merged.keys() == again.keys() == opened.keys()
    for name, weight in merged.items():
        assert torch.equal(weight, opened[name]) and torch.equal(weight, again[name]), name
    assert not torch.equal(merged["mid_block.attentions.0.transformer_blocks.0.attn1.to_q.weight"],
                           base["mid_block.attentions.0.transformer_blocks.0.attn1.to_q.weight"])  # fmt: skip


def test_it_repairs_as_the_merged_export_does_and_goes_on_with_its_own_alone(exports, dataset, tmp_path, capsys):
    manifest = dataset(tmp_path / "drawn", [(64, 48)])
    command = ["repair", "--manifest", manifest, "--num_inference_steps", 1, "--guidance_scale", 1, "--device", "cpu"]
    for model in ("merged", "adapter", "adapter"):
        arguments = [*command, "--model", exports / model, "--output", tmp_path / model]
        assert main([*map(str, arguments)]) == 0
    assert "1 was there" in capsys.readouterr().out
    one, other = (Image.open(tmp_path / model / "000.png").tobytes() for model in ("merged", "adapter"))
    assert one == other
    assert main([*map(str, [*command, "--model", exports / "merged", "--output", tmp_path / "adapter"])]) == 2
    assert "by a model whose files differ" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["fp16", "bf16"])
def test_it_is_written_in_the_precision_asked_for(exports, tmp_path, name):
    assert main(["export", str(exports), str(tmp_path / "out"), "--lora", "adapter", "--dtype", name]) == 0
    for file in (tmp_path / "out").glob("*.safetensors"):
        assert {str(tensor.dtype) for tensor in load_file(file).values()} == {
            {"fp16": "torch.float16", "bf16": "torch.bfloat16"}[name]
        }
    assert main(["export", str(tmp_path / "out"), str(tmp_path / "merged")]) == 0


def test_a_run_that_was_trained_in_full_has_none(tiny_base, tmp_path, capsys):
    checkpoint = write_checkpoint(tmp_path, 1, tiny_base, trained_weights(UnclipRefiner(str(tiny_base))))
    assert main(["export", str(checkpoint), str(tmp_path / "out"), "--lora", "adapter"]) == 2
    assert "was trained in full, so there are no low-rank updates to write apart" in capsys.readouterr().err


def test_a_base_that_has_moved_is_named_and_another_one_is_refused(exports, tiny_base, tmp_path, capsys):
    adapter = shutil.copytree(exports / "adapter", tmp_path / "adapter")
    record = json.loads((adapter / "export.json").read_text())
    record["base"]["base"] = str(tmp_path / "gone")
    (adapter / "export.json").write_text(json.dumps(record))
    command = ["export", str(adapter), str(tmp_path / "out")]
    assert main(command) == 2
    assert "--pretrained_model_name_or_path names the base of the run where it is now" in capsys.readouterr().err
    evaluate = ["repair", "--model", adapter, "--render", exports / "r.png", "--cond", exports / "c.png"]
    for name in ("r.png", "c.png"):
        Image.new("RGB", (64, 48)).save(exports / name)
    assert main([*map(str, [*evaluate, "--output", tmp_path / "o.png"])]) == 2
    assert f"{adapter / 'export.json'} names the base: say there where it is now" in capsys.readouterr().err
    assert main([*command, "--pretrained_model_name_or_path", str(exports / "merged")]) == 2
    assert "was trained from other weights than the base" in capsys.readouterr().err
    assert main([*command, "--pretrained_model_name_or_path", str(tiny_base)]) == 0


@pytest.mark.parametrize("name", ["export.json", "conv_in.safetensors", "pytorch_lora_weights.safetensors"])
def test_an_adapter_that_is_not_whole_is_refused(exports, tmp_path, capsys, name):
    adapter = shutil.copytree(exports / "adapter", tmp_path / "adapter")
    (adapter / name).write_bytes((adapter / name).read_bytes()[:-200])
    assert main(["export", str(adapter), str(tmp_path / "out")]) == 2
    assert f"adapter {adapter}" in capsys.readouterr().err
