"""The moving average of the weights: exact over sharded masters, exported, restored, and what validation sees."""

import json
import os
import shutil
import subprocess
import sys
import time

import pytest
import torch

from refiner_ds.checkpoint.snapshot import AVERAGE
from refiner_ds.checkpoint.state import SavedState
from refiner_ds.cli import main
from refiner_ds.data.index import read_index
from refiner_ds.refiners.unclip.refiner import UnclipRefiner
from refiner_ds.train.ema import SWAPPED_AT_ONCE, Ema
from tests.checkpoints import weights_in
from tests.train.launch import REPO, losses, start, torchrun


def test_the_decay_warms_up_to_its_limit():
    weights = torch.zeros(3)
    ema, expected = Ema([weights], 0.5), torch.zeros(3)
    for n in range(20):
        weights += 1
        decay = min(0.5, (1 + n) / (10 + n))
        expected = decay * expected + (1 - decay) * weights
        ema.update()
        assert torch.allclose(ema.shards[0], expected)
    assert ema.updates == 20


def test_exchanging_twice_gives_everything_back_and_never_a_copy_of_all():
    weights = torch.arange(SWAPPED_AT_ONCE + 5, dtype=torch.float32)
    ema = Ema([weights], 0.9)
    weights.neg_()
    ema.swap()
    assert weights[7] == 7 and weights[-1] == SWAPPED_AT_ONCE + 4 and ema.shards[0][7] == -7
    ema.swap()
    assert weights[7] == -7 and ema.shards[0][-1] == SWAPPED_AT_ONCE + 4


@pytest.fixture(scope="module")
def flags(shards, tiny_base, tmp_path_factory):
    """Runs whose every step is a checkpoint."""
    return {
        "--shards": shards,
        "--pretrained_model_name_or_path": tiny_base,
        "--buckets": "1.0:64x64,1.5:96x64",
        "--train_batch_size": 2,
        "--gradient_accumulation_steps": 2,
        "--learning_rate": 2e-3,
        "--validation_epochs": 1000,
        "--validation_steps": 1,
        "--validation_guidance_scale": 1,
        "--dataloader_num_workers": 0,
        "--checkpointing_steps": 1,
        "--use_ema": None,
        "--tracking_uri": f"sqlite:///{tmp_path_factory.mktemp('mlflow')}/mlflow.db",
    }


def _run(flags, folder, config, steps, **others):
    own = {"--output_dir": folder, "--deepspeed_config": REPO / "ds_configs" / config, "--max_train_steps": steps}
    done = start(torchrun(), {**flags, **own, **others})
    assert done.returncode == 0, done.stdout[-3000:]
    return folder


@pytest.fixture(scope="module")
def whole(flags, tmp_path_factory):
    """Four steps of two ranks under ZeRO-2 in fp32."""
    return _run(flags, tmp_path_factory.mktemp("average") / "run", "zero2_fp32.json", 4)


def _expected(base, run, steps):
    """The average, followed by hand over the masters of every checkpoint."""
    average = {name: value.detach().clone() for name, value in UnclipRefiner(str(base)).network.named_parameters()}
    for n in range(steps):
        for name, weights in weights_in(run / f"checkpoint-{n + 1}").items():
            average[name].lerp_(weights, 1 - (1 + n) / (10 + n))
    return average


@pytest.mark.slow
def test_the_average_follows_the_masters_of_all_ranks(whole, tiny_base):
    found = weights_in(whole / "checkpoint-4", AVERAGE)
    for name, expected in _expected(tiny_base, whole, 4).items():
        torch.testing.assert_close(found[name], expected, rtol=1e-6, atol=1e-7, msg=lambda m, n=name: f"{n}: {m}")


@pytest.mark.slow
@pytest.mark.long
def test_under_zero_1_as_well(flags, tiny_base, tmp_path):
    run = _run(flags, tmp_path / "run", "zero1_bf16.json", 2)
    found = weights_in(run / "checkpoint-2", AVERAGE)
    for name, expected in _expected(tiny_base, run, 2).items():
        torch.testing.assert_close(found[name], expected, rtol=1e-6, atol=1e-7, msg=lambda m, n=name: f"{n}: {m}")


@pytest.mark.slow
def test_it_is_restored_and_an_average_does_not_touch_training(whole, flags, tmp_path):
    run = _run(flags, tmp_path / "run", "zero2_fp32.json", 2)
    _run(flags, run, "zero2_fp32.json", 4)
    for name, expected in weights_in(whole / "checkpoint-4", AVERAGE).items():
        assert torch.equal(weights_in(run / "checkpoint-4", AVERAGE)[name], expected), name
    plain = {name: value for name, value in flags.items() if name != "--use_ema"}
    without = _run(plain, tmp_path / "plain", "zero2_fp32.json", 2)
    assert losses(run) == losses(whole)
    assert losses(without) == {step: losses(whole)[step] for step in (1, 2)}
    assert _validation(without) != _validation(run)
    assert not SavedState(without / "checkpoint-2").has_average


def _validation(run):
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return next(line["val/psnr"] for line in lines if "val/psnr" in line and line["step"] == 2)


@pytest.mark.slow
def test_the_export_takes_it_unless_told_otherwise(whole, tmp_path):
    averaged, masters = weights_in(whole / "checkpoint-4", AVERAGE), weights_in(whole / "checkpoint-4")
    for choice, expected in (("auto", averaged), ("ema", averaged), ("trained", masters)):
        assert main(["export", str(whole), str(tmp_path / choice), "--weights", choice]) == 0
        saved = UnclipRefiner(str(tmp_path / choice)).network.state_dict()
        assert all(torch.equal(saved[name], weights) for name, weights in expected.items())
    assert not torch.equal(averaged["conv_in.weight"], masters["conv_in.weight"])


@pytest.mark.slow
@pytest.mark.parametrize("stage", [1, 2])
def test_an_update_that_is_skipped_does_not_count(stage):
    command = [sys.executable, "-m", "tests.train.skipped_update", str(stage)]
    environment = {**os.environ, "DS_ACCELERATOR": "cpu"}
    done = subprocess.run(command, cwd=REPO, env=environment, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    told = json.loads(done.stdout.splitlines()[-1])
    assert told["updates"] == 3 and told["skipped"] == 1 and told["difference"] < 1e-6


@pytest.mark.slow
def test_a_rank_that_fails_in_validation_ends_the_run_at_once_and_says_why(flags, shards, tmp_path):
    damaged = shutil.copytree(shards, tmp_path / "shards")
    index = read_index(damaged)
    member = index.member(int(index.rows("val")[1]), "gt")  # rank 1 repairs it, and rank 0 waits for its sums
    with (damaged / member.shard).open("r+b") as file:
        file.seek(member.offset)
        file.write(b"broken")
    own = {"--shards": damaged, "--output_dir": tmp_path / "run", "--max_train_steps": 1, "--timeout_minutes": 3}
    config = REPO / "ds_configs" / "zero2_fp32.json"
    started = time.monotonic()
    done = start(torchrun(), {**flags, **own, "--deepspeed_config": config})
    assert done.returncode != 0 and f"{member.name} in " in done.stdout and "cannot be used" in done.stdout
    assert time.monotonic() - started < 150, "it waited for the timeout of its collectives"
