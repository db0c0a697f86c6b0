"""Training from encoded shards, as a user starts it: it loses what training from pictures loses, without encoders."""

import shutil

import pytest
from safetensors.torch import load_file, save_file

from refiner_ds.cli import main
from tests.train.launch import ZERO2, losses, start

pytestmark = pytest.mark.slow
SQUARES = "1.0:64x64"


@pytest.fixture(scope="module")
def flags(tiny_base, tmp_path_factory):
    return {
        "--pretrained_model_name_or_path": tiny_base,
        "--deepspeed_config": ZERO2,
        "--buckets": SQUARES,
        "--train_batch_size": 2,
        "--gradient_accumulation_steps": 2,
        "--max_train_steps": 3,
        "--dataloader_num_workers": 1,
        "--tracking_uri": f"sqlite:///{tmp_path_factory.mktemp('mlflow')}/mlflow.db",
    }


@pytest.fixture(scope="module")
def encoded(shards, tiny_base, tmp_path_factory):
    out = tmp_path_factory.mktemp("encoded") / "shards"
    fixed = ["--pretrained_model_name_or_path", tiny_base, "--buckets", SQUARES, "--device", "cpu"]
    assert main([str(each) for each in ("encode", shards, out, *fixed)]) == 0
    return out


def test_losses_are_those_of_the_pictures_to_rounding(flags, shards, encoded, tmp_path):
    found = {}
    for name, folder, epochs in (("pictures", shards, 0), ("latents", encoded, 0), ("validated", encoded, 1000)):
        own = {"--shards": folder, "--output_dir": tmp_path / name, "--validation_epochs": epochs}
        own |= {"--validation_steps": 1, "--validation_guidance_scale": 1}
        done = start(["-m", "refiner_ds.train"], {**flags, **own})
        assert done.returncode == 0, done.stdout[-3000:]
        found[name] = losses(tmp_path / name)
    assert found["latents"] == pytest.approx(found["pictures"], rel=2e-2)
    assert found["validated"] == found["latents"]
    assert '"val/psnr"' in (tmp_path / "validated" / "metrics.jsonl").read_text()


def test_a_base_with_other_encoders_is_refused(flags, encoded, tiny_base, tmp_path):
    other = shutil.copytree(tiny_base, tmp_path / "other")
    (path,) = (other / "vae").glob("*.safetensors")
    weights = load_file(path)
    save_file({**weights, "encoder.conv_in.weight": 2 * weights["encoder.conv_in.weight"]}, path, {"format": "pt"})
    own = {"--shards": encoded, "--output_dir": tmp_path / "run", "--pretrained_model_name_or_path": other}
    done = start(["-m", "refiner_ds.train"], {**flags, **own})
    assert done.returncode == 2
    assert "were made by other encoders than those of --pretrained_model_name_or_path" in done.stdout
