"""Metrics against figures computed by hand, and validation over several ranks against one."""

import numpy as np
import pytest
import torch

from refiner_ds.batch import Batch
from refiner_ds.data.buckets import parse_buckets
from refiner_ds.data.samples import Samples
from refiner_ds.data.shards import open_shards
from refiner_ds.evaluate.metrics import CEILING_DB, compare
from refiner_ds.evaluate.repairs import repair_all
from refiner_ds.evaluate.summary import means
from refiner_ds.evaluate.validation import metrics_of, validate
from refiner_ds.refiners.protocol import Sampling
from refiner_ds.world import World


def _random(seed):
    return torch.randint(0, 256, (1, 3, 40, 60), dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))


def test_psnr_is_its_definition_and_finite_for_equal_pictures():
    one, two = _random(0), _random(1)
    error = np.mean((one.numpy().astype(float) - two.numpy()) ** 2)
    assert compare(one, two)["psnr"] == pytest.approx(10 * np.log10(255**2 / error), rel=1e-5)
    assert compare(one, one) == {"psnr": CEILING_DB, "ssim": pytest.approx(1.0)}


def test_ssim_falls_with_blur_and_with_noise():
    gt = torch.nn.functional.interpolate(_random(0).float()[..., :8, :12], (40, 60), mode="bicubic").clamp(0, 255)
    noisy = (gt + 20 * torch.randn(gt.shape, generator=torch.Generator().manual_seed(1))).clamp(0, 255)
    noisier = (gt + 60 * torch.randn(gt.shape, generator=torch.Generator().manual_seed(1))).clamp(0, 255)
    ssims = [compare(picture.to(torch.uint8), gt.to(torch.uint8))["ssim"] for picture in (gt, noisy, noisier)]
    assert ssims[0] > ssims[1] > ssims[2]


@pytest.mark.parametrize(("height", "width"), [(40, 60), (11, 11), (13, 200)])
def test_both_are_those_of_torchmetrics(height, width):
    image = pytest.importorskip("torchmetrics.functional.image")
    chance = torch.Generator().manual_seed(5)
    smooth = torch.rand(1, 3, 6, 8, generator=chance)
    gt = torch.nn.functional.interpolate(smooth, (height, width), mode="bicubic").clamp(0, 1) * 255
    for noise in (0, 3, 50):
        picture = (gt + noise * torch.randn(gt.shape, generator=chance)).clamp(0, 255).to(torch.uint8)
        one, other = picture.float() / 255, gt.to(torch.uint8).float() / 255
        found = compare(picture, gt.to(torch.uint8))
        ssim = image.structural_similarity_index_measure(one, other, data_range=1.0)
        assert found["ssim"] == pytest.approx(float(ssim), abs=1e-5)
        psnr = image.peak_signal_noise_ratio(one, other, data_range=1.0)
        assert found["psnr"] == pytest.approx(min(float(psnr), CEILING_DB), rel=1e-5)


class Echo:
    """A refiner that hands back the reference, whose figures are therefore known."""

    network = torch.nn.Identity()

    def repair(self, render, references, seeds, sampling):
        self.seeds = [*getattr(self, "seeds", []), *seeds]
        return references[:, 0]


def test_the_means_are_those_of_the_samples():
    batch = Batch(_random(0), _random(1), _random(1), (0,), ("a",))
    other = Batch(_random(2), _random(3), _random(4), (1,), ("b",))
    refiner = Echo()
    samples = [each.judged for each in repair_all(refiner, [batch, other], Sampling(1, 1.0), 0, scenes=["x", "y"])]
    figures = means(samples)
    assert figures["repaired"]["psnr"] == pytest.approx((CEILING_DB + compare(_random(4), _random(3))["psnr"]) / 2)
    assert figures["render"]["psnr"] == pytest.approx(np.mean([s.render["psnr"] for s in samples]))
    assert len(set(refiner.seeds)) == 2 and [each.scene for each in samples] == ["x", "y"]


def test_ranks_together_validate_every_held_out_sample_once(shards, tmp_path):
    held_out = Samples.of(open_shards(str(shards)), "val", parse_buckets("1.0:64x64"), 0)
    refiner, sampling, own = Echo(), Sampling(1, 1.0), []

    def gathered(item):
        own.append(item)
        return own

    for rank in range(3):
        found, _ = validate(refiner, held_out, World(rank, 3), sampling, 0, gathered, tmp_path / "three", lambda: True)
    alone, pictures = validate(
        Echo(), held_out, World(), sampling, 0, lambda item: [item], tmp_path / "one", lambda: True
    )
    assert found == alone and alone.samples == len(held_out), "intervals and all"
    stopped = validate(Echo(), held_out, World(), sampling, 0, lambda item: [item], tmp_path / "no", lambda: False)
    assert stopped is None
    assert len(refiner.seeds) == len(set(refiner.seeds)) == len(held_out)
    assert [p.name for p in pictures] == sorted(p.name for p in (tmp_path / "three").glob("*.png"))
    told = metrics_of(alone)
    assert {"val/psnr", "val/ssim", "val/render_psnr", "val/render_ssim", "val/worse_share"} <= told.keys()
    assert told["val/gain_low"] <= told["val/psnr"] - told["val/render_psnr"] <= told["val/gain_high"]
