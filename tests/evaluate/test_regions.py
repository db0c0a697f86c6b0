"""Where renders are right and wrong: a hole is found, grain is not, and what a repair does to each is told apart."""

import math

import pytest
import torch

from refiner_ds.evaluate.regions import compare_regions, is_wrong


@pytest.fixture
def gt():
    """A picture of soft colours."""
    coarse = torch.randint(40, 216, (1, 3, 6, 8), generator=torch.Generator().manual_seed(0)).float()
    return torch.nn.functional.interpolate(coarse, (60, 80), mode="bicubic").clamp(0, 255).to(torch.uint8)


def holed(gt):
    """A square of 20x20 pixels is black."""
    render = gt.clone()
    render[..., 20:40, 30:50] = 0
    return render


def test_a_hole_is_wrong_and_grain_is_not(gt):
    render = holed(gt)
    found = is_wrong(render, gt)
    assert found[..., 22:38, 32:48].all() and not found[..., :12, :].any()
    grain = (gt.float() + 12 * torch.randn(gt.shape, generator=torch.Generator().manual_seed(1))).clamp(0, 255)
    assert not is_wrong(grain.to(torch.uint8), gt).any()


def test_a_repair_of_the_hole_alone_heals_and_harms_nothing(gt):
    figures = compare_regions(holed(gt), gt, gt)
    assert figures["healed"] == 1 and figures["harmed"] == 0 and figures["wrong_psnr"] == 100
    assert 0.05 < figures["wrong_share"] < 0.2
    assert figures["wrong_render_psnr"] < 15 < figures["right_render_psnr"]


def test_a_repair_that_changes_what_was_right_is_told_as_harm(gt):
    render = holed(gt)
    darker = render.clone()
    darker[..., :, 60:] = 0
    figures = compare_regions(render, darker, gt)
    assert figures["healed"] == 0 and 0.1 < figures["harmed"] < 0.4
    assert figures["right_psnr"] < figures["right_render_psnr"] - 5
    assert figures["wrong_psnr"] == figures["wrong_render_psnr"]


def test_a_region_that_is_not_there_has_no_figures(gt):
    assert compare_regions(gt, gt, gt) == {
        "wrong_share": 0, "right_render_psnr": 100, "right_psnr": 100, "harmed": 0,
    }  # fmt: skip


def test_psnr_of_a_region_is_its_definition(gt):
    render = holed(gt)
    region = is_wrong(render, gt).expand_as(gt)
    squares = ((render.double() - gt.double()) / 255).square()[region]
    assert compare_regions(render, gt, gt)["wrong_render_psnr"] == pytest.approx(-10 * math.log10(squares.mean()), 1e-4)
