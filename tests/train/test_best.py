"""The best validation of a run, by whichever metric it was told to take."""

import pytest

from refiner_ds.train.best import best_metric, best_steps
from refiner_ds.train.folder import write_settings
from tests.train.launch import ZERO2, start


@pytest.mark.parametrize(
    ("metric", "best"),
    [("psnr", [30, 20]), ("ssim", [30, 20]), ("dino", [30, 20]), ("lpips", [10, 40]), ("worse_share", [10, 40])],
)
def test_the_best_is_the_highest_or_of_what_should_fall_the_lowest(metric, best):
    figures = {10: 0.1, 20: 0.5, 30: 0.9, 40: 0.2, 50: float("nan")}
    assert best_steps(figures, f"val/{metric}", 2) == best
    assert best_steps({}, f"val/{metric}") == []


def test_a_run_tells_its_metric(tmp_path):
    write_settings(tmp_path / "run", {"train": {"best_metric": "lpips"}})
    assert best_metric(tmp_path / "run") == "val/lpips" and best_metric(tmp_path) == "val/psnr"


@pytest.mark.slow
def test_a_metric_whose_weights_are_not_here_is_refused_before_anything_is_trained(shards, tiny_base, tmp_path):
    flags = {
        "--shards": shards,
        "--pretrained_model_name_or_path": tiny_base,
        "--output_dir": tmp_path / "run",
        "--deepspeed_config": ZERO2,
        "--buckets": "1.0:64x64,1.5:96x64",
        "--train_batch_size": 2,
        "--gradient_accumulation_steps": 1,
        "--best_metric": "dino",
        "--max_train_steps": 1,
    }
    done = start(["-m", "refiner_ds.train"], flags, HF_HOME=str(tmp_path / "hub"), TORCH_HOME=str(tmp_path / "torch"))
    assert done.returncode == 2, done.stdout[-3000:]
    (said,) = [line for line in done.stdout.splitlines() if "--best_metric" in line]
    assert "--best_metric dino cannot be computed, so no checkpoint would be the best: no DINO: " in said
    assert "LPIPS" not in said and said.endswith(", or take psnr, ssim or worse_share.")
    assert not (tmp_path / "run" / "metrics.jsonl").exists()
