"""LPIPS and DINO: taken where the weights are, told of where they are not, and true to their definitions."""

import sys
import types

import pytest
import torch
from torch import nn
from transformers import Dinov2Config, Dinov2Model

from refiner_ds.evaluate import perceptual
from refiner_ds.evaluate.perceptual import Dino, Lpips, find_perceptual

CPU = torch.device("cpu")


def picture(seed, height=70, width=90):
    return torch.randint(
        0, 256, (1, 3, height, width), dtype=torch.uint8, generator=torch.Generator().manual_seed(seed)
    )


def alexnet():
    """The layers that torchvision's AlexNet has before its classifier, with weights by chance."""
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 64, 11, 4, 2), nn.ReLU(True), nn.MaxPool2d(3, 2), nn.Conv2d(64, 192, 5, padding=2), nn.ReLU(True),
        nn.MaxPool2d(3, 2), nn.Conv2d(192, 384, 3, padding=1), nn.ReLU(True), nn.Conv2d(384, 256, 3, padding=1),
        nn.ReLU(True), nn.Conv2d(256, 256, 3, padding=1), nn.ReLU(True), nn.MaxPool2d(3, 2),
    )  # fmt: skip


@pytest.fixture
def weights(tmp_path):
    path = tmp_path / "checkpoints" / perceptual.LPIPS_FILE
    path.parent.mkdir()
    held = {f"features.{name}": value for name, value in alexnet().state_dict().items()}
    torch.save({**held, "classifier.1.weight": torch.zeros(2)}, path)
    return path


def test_lpips_is_that_of_torchmetrics(weights, monkeypatch):
    space = types.SimpleNamespace  # in place of torchvision, which is not needed otherwise
    models = space(alexnet=lambda weights: space(features=alexnet()), AlexNet_Weights=space(DEFAULT=None))
    monkeypatch.setitem(sys.modules, "torchvision", space(models=models))
    lpips = pytest.importorskip("torchmetrics.functional.image.lpips")
    monkeypatch.setattr(lpips, "_TORCHVISION_AVAILABLE", True)
    theirs = lpips._LPIPS(pretrained=True, net="alex", use_dropout=True, eval_mode=True)
    one, two = picture(0), picture(1)
    expected = theirs(one.float() / 127.5 - 1, two.float() / 127.5 - 1)
    assert Lpips(weights, CPU)(one, two) == pytest.approx(float(expected), rel=1e-4)
    assert Lpips(weights, CPU)(one, one) == 0


def test_dino_compares_what_is_said_of_whole_pictures(tmp_path):
    small = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "image_size": 28, "patch_size": 14}
    torch.manual_seed(0)
    Dinov2Model(Dinov2Config(**small)).save_pretrained(tmp_path)
    dino = Dino(str(tmp_path), CPU)
    one, two = picture(0, 40, 600), picture(1, 40, 600)
    assert dino(one, one) == pytest.approx(1) and -1 <= dino(one, two) < 1
    assert dino(one, two) == dino(two, one)


def test_what_is_not_here_is_told_with_where_it_was_looked_for(weights, tmp_path, monkeypatch):
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    monkeypatch.setattr(perceptual, "DINO", str(tmp_path / "no-dino"))
    told = []
    assert [metric.name for metric in find_perceptual(CPU, told.append)] == ["lpips"]
    assert len(told) == 1 and f"no DINO: {tmp_path}/no-dino is not in the cache" in told[0]
    weights.unlink()
    assert list(find_perceptual(CPU, told.append)) == []
    assert told[1].startswith(f"no LPIPS: its AlexNet is not at {weights} (No such file or directory); put it there")
