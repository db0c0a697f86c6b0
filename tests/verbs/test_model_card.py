"""The model card of an export: what the hub reads of it, what it tells, and that its usage does what it says."""

import json
import re
import subprocess
import sys

import pytest
import yaml
from PIL import Image

from refiner_ds.cli import main
from refiner_ds.refiners.unclip.refiner import UnclipRefiner
from refiner_ds.verbs.model_card import license_of
from tests.checkpoints import trained_weights, write_checkpoint


@pytest.fixture
def exported(tiny_base, tmp_path):
    """The export of a run with a validation, in tmp_path/out."""
    write_checkpoint(tmp_path / "run", 7, tiny_base, trained_weights(UnclipRefiner(str(tiny_base))))
    figures = {"val/psnr": 21.5, "val/ssim": 0.61, "val/render_psnr": 18.25, "val/render_ssim": 0.5}
    (tmp_path / "run" / "metrics.jsonl").write_text(json.dumps({"step": 7, "time": 0, **figures}) + "\n")
    assert main(["export", str(tmp_path / "run"), str(tmp_path / "out")]) == 0
    return tmp_path / "out"


def test_the_hub_reads_its_metadata(exported):
    text = (exported / "README.md").read_text()
    _, front, body = text.split("---\n", 2)
    told = yaml.safe_load(front)
    assert told["library_name"] == "diffusers" and told["pipeline_tag"] == "image-to-image"
    assert told["license"] == "other", "nobody knows the licence of a base in a folder"
    (result,) = told["model-index"][0]["results"]
    assert {metric["type"]: metric["value"] for metric in result["metrics"]} == {"psnr": 21.5, "ssim": 0.61}
    assert "| PSNR, dB | 18.25 | 21.50 |" in body and "| optimizer steps | 7 |" in body
    assert all(heading in body for heading in ("## Use", "## Training", "## Limits", "## Licence"))
    assert "README.md" in json.loads((exported / "export.json").read_text())["files"], "so that --replace may take it"


def test_its_usage_repairs_a_picture_as_it_says(exported):
    (snippet,) = re.findall(r"```python\n(.*?)```", (exported / "README.md").read_text(), flags=re.DOTALL)
    folder = exported.parent
    for name in ("render", "reference"):
        Image.new("RGB", (64, 48), "grey").save(folder / f"{name}.png")
    path = exported / "model_index.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "num_inference_steps": 1}))
    done = subprocess.run(
        [sys.executable, "-c", snippet], cwd=folder, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert Image.open(folder / "repaired.png").size == (64, 48)


@pytest.mark.parametrize(
    ("base", "license"),
    [
        ("sd2-community/stable-diffusion-2-1-unclip", "openrail++"),
        ("/models/stable-diffusion-2-1-unclip", "openrail++"),
        ("somebody/base", "other"),
        (None, "other"),
    ],
)
def test_the_licence_is_that_of_the_base_where_it_is_known(base, license):
    assert license_of(base) == license
