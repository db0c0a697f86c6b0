"""Bases from a hub: what is asked for, what is downloaded, what is refused; over HTTP, without the network."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from refiner_ds.refiners.protocol import Sampling
from refiner_ds.refiners.unclip.parts import write_sampling
from refiner_ds.refiners.unclip.weights import NETWORKS
from tests.refiners import hub_loads
from tests.refiners.hub_server import Hub, commit_of

GONE = "stabilityai/stable-diffusion-2-1-unclip"
CASES: dict[str, dict[str, str] | str] = {
    "plain": {"base": "sd2-community/tiny"},
    "again": {"base": "sd2-community/tiny"},
    "half": {"base": "sd2-community/half", "variant": "fp16"},
    "tag": {"base": "sd2-community/tiny", "revision": "v1"},
    "commit": {"base": "sd2-community/tiny", "revision": commit_of("v1")},
    "pickled": {"base": "sd2-community/pickled"},
    "no revision": {"base": "sd2-community/tiny", "revision": "v2"},
    "no commit": {"base": "sd2-community/tiny", "revision": commit_of("v2")},
    "no variant": {"base": "sd2-community/tiny", "variant": "bf16"},
    "gone": {"base": GONE},
    "gone small": {"base": f"{GONE}-small"},
    "unknown": {"base": "runs/kitti360"},
    "misspelt": {"base": "a base/of mine"},
    "stop": "stop",
    "unreachable": {"base": "sd2-community/other"},
    "unreachable again": {"base": "sd2-community/tiny"},
    "unreachable pickled": {"base": "sd2-community/pickled"},
}


@pytest.fixture(scope="module")
def hub(tiny_base, tmp_path_factory) -> Hub:
    """A hub with the tiny base, amid the other files that such repositories hold."""
    folder = tmp_path_factory.mktemp("hub")
    plain, tagged, half, pickled = (
        shutil.copytree(tiny_base, folder / name) for name in ("plain", "tagged", "half", "pickled")
    )
    write_sampling(tagged, Sampling(7))
    for part in NETWORKS:
        for place in (plain, half):
            (file,) = [path for path in (place / part).glob("*.safetensors") if "fp16" not in path.name]
            weights = {name: tensor.half() for name, tensor in load_file(file).items()}
            save_file(weights, file.with_suffix(".fp16.safetensors"))
            file.with_name("pytorch_model.bin" if file.stem == "model" else f"{file.stem}.bin").write_bytes(b"pickle")
    for name in ("sd21-unclip-h.ckpt", "sd21-unclip-h.safetensors", "README.md"):
        (plain / name).write_bytes(b"large")
    (plain / "unet" / "diffusion_pytorch_model.non_ema.safetensors").write_bytes(b"large")
    (pickled / "vae" / "diffusion_pytorch_model.safetensors").unlink()
    torch.save(
        load_file(tiny_base / "vae" / "diffusion_pytorch_model.safetensors"),
        pickled / "vae" / "diffusion_pytorch_model.bin",
    )
    (pickled / "unet" / "diffusion_pytorch_model.bin").write_bytes(b"pickle")
    models = {"tiny": {"main": plain, "v1": tagged}, "half": {"main": half}, "pickled": {"main": pickled}}
    return Hub({f"sd2-community/{name}": revisions for name, revisions in models.items()})


@pytest.fixture(scope="module")
def outcomes(hub, tmp_path_factory) -> dict[str, dict]:
    """What came of every case, from one process."""
    environment = {
        **os.environ,
        "HF_ENDPOINT": hub.url,
        "HF_HOME": str(tmp_path_factory.mktemp("home")),
        "HF_HUB_OFFLINE": "0",
        "HF_HUB_DISABLE_XET": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "NO_PROXY": "127.0.0.1",
        "PYTHONPATH": str(Path(__file__).parents[2]),
    }
    environment.pop("HF_TOKEN", None)
    with hub:
        done = subprocess.run(
            [sys.executable, hub_loads.__file__],
            input=json.dumps(list(CASES.values())),
            env=environment,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
    assert done.returncode == 0, done.stderr
    return dict(zip([name for name in CASES if name != "stop"], json.loads(done.stdout), strict=True))


def sums(folder: Path, pattern: str) -> dict[str, float]:
    """By part, the sum of the weights in its one file of that name."""
    files = {part: next((folder / part).glob(pattern)) for part in NETWORKS}
    return {
        part: sum(tensor.float().double().sum().item() for tensor in load_file(file).values())
        for part, file in files.items()
    }


def test_a_hub_id_loads_and_a_second_time_downloads_nothing(hub, outcomes, tiny_base):
    assert outcomes["plain"]["is_fp32"] and outcomes["plain"]["steps"] == 1
    assert outcomes["plain"]["sums"] == pytest.approx(sums(tiny_base, "*.safetensors"))
    assert outcomes["again"] == outcomes["plain"] == outcomes["unreachable again"]
    twice = {file for file in hub.files if hub.files.count(file) > 1}
    assert twice == {("sd2-community/tiny", "model_index.json")}, "which alone differs between the two revisions"


def test_only_what_is_needed_is_downloaded(hub, outcomes, tiny_base):
    assert "refusal" not in outcomes["plain"]
    every = {str(file.relative_to(tiny_base)) for file in tiny_base.rglob("*") if file.is_file()}
    assert {file for model, file in hub.files if model == "sd2-community/tiny"} == every


def test_a_variant_downloads_only_its_weights_and_computes_in_fp32(hub, outcomes):
    files = {file for model, file in hub.files if model == "sd2-community/half"}
    weights = {file for file in files if file.endswith((".safetensors", ".bin"))}
    assert {file.split("/")[0] for file in weights} == set(NETWORKS)
    assert all(file.endswith(".fp16.safetensors") for file in weights)
    folder = hub.models["sd2-community/half"]["main"]
    assert outcomes["half"]["sums"] == pytest.approx(sums(folder, "*.fp16.safetensors"))
    assert outcomes["half"]["is_fp32"]


def test_bin_files_are_downloaded_for_the_parts_alone_that_have_nothing_better(hub, outcomes):
    files = {file for model, file in hub.files if model == "sd2-community/pickled"}
    assert {file for file in files if file.endswith(".bin")} == {"vae/diffusion_pytorch_model.bin"}
    assert outcomes["pickled"] == outcomes["plain"] == outcomes["unreachable pickled"]


def test_the_revision_that_was_asked_for_is_loaded(hub, outcomes):
    assert {"main", "v1", "v2"} == {revision for model, revision in hub.revisions if model == "sd2-community/tiny"}
    assert outcomes["tag"]["steps"] == outcomes["commit"]["steps"] == 7
    assert outcomes["plain"]["steps"] == 1


@pytest.mark.parametrize(
    ("case", "words"),
    [
        (
            "no revision",
            "model sd2-community/tiny has no revision v2, so there is nothing to load; name a branch, tag or",
        ),
        ("no commit", f"model sd2-community/tiny has no revision {commit_of('v2')}, so there is nothing to load"),
        ("no variant", "variant bf16 of its vae is not there (no diffusion_pytorch_model.bf16.safetensors), and the "),
        ("gone", "left in November 2025; name its community mirror sd2-community/stable-diffusion-2-1-unclip."),
        ("gone small", "name its community mirror sd2-community/stable-diffusion-2-1-unclip-small."),
        ("unknown", "model runs/kitti360 is no folder here, and the hub has no such model or none that you may see; "),
        (
            "misspelt",
            "model a base/of mine is no folder, so there are no networks to load; name a checkpoint folder or",
        ),
        ("unreachable", "model sd2-community/other is neither a folder here nor to be had from the hub ("),
    ],
)
def test_what_the_hub_does_not_give_is_told_in_one_sentence(outcomes, case, words):
    refusal = outcomes[case]["refusal"]
    assert words in refusal
    assert refusal.endswith(".") and "\n" not in refusal
