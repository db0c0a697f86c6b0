"""A run under the optimizer and scheduler sections of a JSON, as a user starts it on two ranks."""

import json

import pytest

from tests.train.launch import deepspeed, losses, start

SECTIONS = {
    "bf16": {"enabled": True},
    "data_types": {"grad_accum_dtype": "fp32"},
    "zero_optimization": {"stage": 2},
    "optimizer": {"type": "RMSprop", "params": {"lr": "auto", "alpha": 0.9}},
    "scheduler": {"type": "WarmupDecayLR", "params": {"warmup_num_steps": 2, "warmup_type": "linear"}},
}


@pytest.mark.slow
def test_a_run_follows_its_sections_and_continues_in_them(shards, tiny_base, tmp_path):
    config, folder = tmp_path / "zero.json", tmp_path / "run"
    config.write_text(json.dumps(SECTIONS))
    flags = {
        "--shards": shards,
        "--pretrained_model_name_or_path": tiny_base,
        "--output_dir": folder,
        "--deepspeed_config": config,
        "--buckets": "1.0:64x64,1.5:96x64",
        "--gradient_accumulation_steps": 1,
        "--learning_rate": 1e-3,
        "--validation_epochs": 0,
        "--dataloader_num_workers": 1,
        "--tracking_uri": f"sqlite:///{tmp_path}/mlflow.db",
    }
    for last in (3, 6):
        done = start(deepspeed("--module", "refiner_ds.train"), {**flags, "--max_train_steps": last})
        assert done.returncode == 0, done.stdout[-3000:]
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    rates = [line["train/lr"] for line in lines if "train/lr" in line]
    # to its end, as far as each command knows it: three steps in all, then six
    assert rates == pytest.approx([0.0, 5e-4, 1e-3, 7.5e-4, 5e-4, 2.5e-4])
    assert "continuing from" in done.stdout and sorted(losses(folder)) == [1, 2, 3, 4, 5, 6]
    settings = json.loads((folder / "run.json").read_text())
    assert settings["optimizer"] == {"name": "RMSprop", "params": {"alpha": 0.9}}
    assert settings["schedule"]["params"]["total_num_steps"] == 6
    assert settings["learning_rate"] == 1e-3
