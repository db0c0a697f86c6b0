"""LPIPS and DINO: taken where the weights are, told of where they are not, and true to their definitions."""

import shutil
import socket
import sys
import types

import pytest
import torch
from huggingface_hub import try_to_load_from_cache
from transformers import Dinov2Config, Dinov2Model

from refiner_ds.evaluate import perceptual
from refiner_ds.evaluate.perceptual import PERCEPTUAL, Dino, Lpips, find_perceptual, shared_perceptual
from tests.evaluate.alexnet import alexnet, write_alexnet

CPU = torch.device("cpu")


def picture(seed, height=70, width=90):
    return torch.randint(
        0, 256, (1, 3, height, width), dtype=torch.uint8, generator=torch.Generator().manual_seed(seed)
    )


@pytest.fixture
def weights(tmp_path):
    return write_alexnet(tmp_path)


def test_lpips_is_that_of_torchmetrics(weights, monkeypatch):
    lpips = pytest.importorskip("torchmetrics.functional.image.lpips")
    space = types.SimpleNamespace  # in place of torchvision, which is not needed otherwise
    models = space(alexnet=lambda weights: space(features=alexnet()), AlexNet_Weights=space(DEFAULT=None))
    monkeypatch.setitem(sys.modules, "torchvision", space(models=models))
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
    dino = Dino(tmp_path, CPU)
    one, two = picture(0, 40, 600), picture(1, 40, 600)
    assert dino(one, one) == pytest.approx(1) and -1 <= dino(one, two) < 1
    assert dino(one, two) == dino(two, one)


@pytest.fixture
def told(tmp_path, monkeypatch):
    """What was told, by the name of the metric, where the hub of torch is the test's folder and no DINO is anywhere."""
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    monkeypatch.setattr(perceptual, "DINO", "nobody/no-dino")
    return {}


def test_what_is_not_here_is_told_with_where_it_was_looked_for(weights, tmp_path, told):
    assert [metric.name for metric in find_perceptual(CPU, told.__setitem__)] == ["lpips"]
    assert [*told] == ["dino"] and "no DINO: nobody/no-dino is not in the cache" in told["dino"]
    weights.unlink()
    assert list(find_perceptual(CPU, told.__setitem__)) == []
    said = f"no LPIPS: its AlexNet is not at {weights} (No such file or directory); put it there"
    assert told["lpips"].startswith(said) and {*told} == {*PERCEPTUAL}


def test_what_is_here_is_found_without_a_word_to_the_network(weights, told, tmp_path, monkeypatch):
    small = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "image_size": 28, "patch_size": 14}
    cache = tmp_path / "hub" / "models--nobody--no-dino"
    Dinov2Model(Dinov2Config(**small)).save_pretrained(cache / "snapshots" / "0123")
    (cache / "refs").mkdir()
    (cache / "refs" / "main").write_text("0123")
    find, asked = try_to_load_from_cache, []
    monkeypatch.setattr(perceptual, "try_to_load_from_cache", lambda *of: find(*of, cache_dir=tmp_path / "hub"))
    monkeypatch.setattr(socket, "getaddrinfo", lambda *of, **more: asked.append(of) or [])
    assert [metric.name for metric in find_perceptual(CPU, told.__setitem__)] == [*PERCEPTUAL] and not told
    shutil.rmtree(cache)
    assert [metric.name for metric in find_perceptual(CPU, told.__setitem__)] == ["lpips"] and [*told] == ["dino"]
    assert not asked


@pytest.mark.parametrize("content", [b"", b"no weights at all", "half", "another network"])
def test_a_damaged_file_is_told_and_ends_nothing(weights, told, content):
    if content == "half":
        weights.write_bytes(weights.read_bytes()[: weights.stat().st_size // 2])
    elif content == "another network":
        torch.save({"features.0.weight": torch.zeros(3)}, weights)
    else:
        weights.write_bytes(content)
    assert list(find_perceptual(CPU, told.__setitem__)) == []
    assert told["lpips"].startswith(f"no LPIPS: its AlexNet is not at {weights} (") and "\n" not in told["lpips"]


def test_ranks_share_what_all_of_them_have(weights, told):
    others = [(["lpips"], "one", [("dino", "no DINO")]), ([], "two", [("lpips", "no LPIPS"), ("dino", "no DINO")])]
    said = []
    alone = shared_perceptual(CPU, "here", lambda own: [own], lambda *lack: said.append(lack))
    assert [metric.name for metric in alone] == ["lpips"] and said[0][1].startswith("no DINO")
    said.clear()
    assert shared_perceptual(CPU, "here", lambda own: [own, *others], lambda *lack: said.append(lack)) == []
    assert {("lpips", "two: no LPIPS"), ("dino", "one: no DINO")} <= set(said)
    assert any(words.startswith("here: no DINO") for _, words in said)
