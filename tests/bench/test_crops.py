"""`refiner-ds bench crops`: differences by their place, and a run whose figures follow from what encode does."""

import json

import pytest
import torch

from refiner_ds.bench.crops import PLACES, Crop, as_json, as_markdown, compare
from refiner_ds.cli import main

TABLE = "1.0:64x64,1.5:96x64"


def crop(error: float, is_cut=(True, True), width=10, cosine=0.9, losses=(1.1, 1.0)) -> Crop:
    """A crop of ones, off by `error` in its outermost columns."""
    exact = torch.ones(3, 2, width, width)
    cut = exact.clone()
    cut[..., 0] += error
    cut[..., -1] -= error
    return Crop(cut, exact, is_cut, cosine, losses)


def test_a_difference_is_told_where_it_lies():
    found = compare([crop(0.5)])
    assert [(part.first, part.last) for part in found.parts] == [(0, 0), (1, 1), (2, 2), (3, 3), (4, 4)]
    assert [part.error for part in found.parts] == [0.5, 0, 0, 0, 0]
    assert found.error == pytest.approx((2 / 10 * 0.25) ** 0.5)


def test_the_border_of_the_picture_is_no_cut():
    found = compare([crop(0.5, (True, False), width=40)])
    assert [part.first for part in found.parts] == [*PLACES] and found.parts[-1].last == 39
    assert found.parts[0].error == 0.5, "the cut on the left"
    assert found.parts[-1].error == pytest.approx((0.25 / 8) ** 0.5), "and the border, far from it"


def test_crops_count_together():
    found = compare([crop(0.0, cosine=0.8, losses=(2.0, 1.0)), crop(1.0, cosine=0.6, losses=(1.0, 2.0)), crop(1.0)])
    assert found.parts[0].error == pytest.approx((2 / 3) ** 0.5)
    assert found.cosine == (0.8, 0.6) and found.crops == 3
    assert (found.loss, found.exact_loss) == pytest.approx((4.1 / 3, 4 / 3))
    assert found.loss_difference == pytest.approx(2.1 / 4)
    page = as_markdown(found, {"command": "refiner-ds bench crops", "machine": "m", "date": "d", "what": "w"})
    assert "| 0 | 81.65% |" in page and "cosine 0.8000 in the median, 0.6000 at least" in page
    assert as_json(found, {})["parts"][0]["error"] == found.parts[0].error


def test_latents_differ_most_at_the_cut_and_hardly_within(shards, tiny_base, tmp_path, capsys):
    told = tmp_path / "f.json"
    given = ["--shards", str(shards), "--pretrained_model_name_or_path", str(tiny_base), "--buckets", TABLE]
    assert main(["bench", "crops", *given, "--samples", "6", "--device", "cpu", "--json", str(told)]) == 0
    found, page = json.loads(told.read_text()), capsys.readouterr().out
    assert str(shards) not in page and "--shards SHARDS --pretrained_model_name_or_path BASE" in page
    errors = [part["error"] for part in found["parts"]]
    assert 1 <= found["crops"] <= 6 and errors[0] == max(errors) > 2 * errors[-1] > 0
    assert errors[-1] < found["error"] < errors[0]
    assert 0.5 < found["cosine"][1] <= found["cosine"][0] <= 1.0001
    assert abs(found["loss"] / found["exact_loss"] - 1) <= found["loss_difference"] + 1e-9 < 0.5


def test_what_cannot_be_compared_is_refused_in_one_sentence(shards, tiny_base, capsys):
    given = ["--shards", str(shards), "--pretrained_model_name_or_path", str(tiny_base)]

    def refused(*more: str) -> str:
        assert main(["bench", "crops", *given, *more]) == 2
        told = capsys.readouterr().err.strip()
        assert len(told.splitlines()) == 1 and told.endswith(".")
        return told

    assert "--samples 0 leaves nothing to compare" in refused("--samples", "0")
    assert "hold square pictures alone by --buckets" in refused("--buckets", "1.0:64x64", "--device", "cpu")
