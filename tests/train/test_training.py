"""Training as a user starts it, two ranks on the CPU: it learns, shards, tracks, resumes, exports and repairs."""

import json
import platform
import shutil

import numpy as np
import pytest
import torch
from diffusers import DiffusionPipeline
from PIL import Image

from refiner_ds.cli import main
from refiner_ds.data.index import read_index
from refiner_ds.refiners.unclip.refiner import UnclipRefiner
from refiner_ds.state import read_state
from refiner_ds.tracking.journal import read_metrics
from tests.checkpoints import weights_in
from tests.train.launch import REPO, ZERO2, accelerate, deepspeed, free_port, kill_once, losses, srun, start, torchrun

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def flags(shards, tiny_base, tmp_path_factory):
    """What every run of this file has in common."""
    return {
        "--shards": shards,
        "--pretrained_model_name_or_path": tiny_base,
        "--buckets": "1.0:64x64,1.5:96x64",
        "--train_batch_size": 2,
        "--gradient_accumulation_steps": 2,
        "--learning_rate": 2e-3,
        "--validation_epochs": 0,
        "--dataloader_num_workers": 1,
        "--logging_steps": 3,
        "--tracking_uri": f"sqlite:///{tmp_path_factory.mktemp('mlflow')}/mlflow.db",
    }


@pytest.fixture(scope="module")
def whole(flags, tmp_path_factory):
    """Eight steps in one go under the deepspeed launcher."""
    folder = tmp_path_factory.mktemp("runs") / "whole"
    settings = {
        **flags,
        "--output_dir": folder,
        "--deepspeed_config": ZERO2,
        "--max_train_steps": 8,
        "--checkpointing_steps": 4,
        "--validation_epochs": 1000,
        "--validation_guidance_scale": 1,
        "--validation_steps": 2,
    }
    done = start(deepspeed("--module", "refiner_ds.train"), settings)
    assert done.returncode == 0, done.stdout[-3000:]
    return folder, done.stdout


def test_a_run_says_what_it_does_and_learns(whole):
    folder, output = whole
    assert "hardware  2 x CPU, ZeRO-2, fp32\n  batch     global batch 8 = 2 x 2 accumulated x 2 ranks" in output
    assert "data      20 training samples (pictures), 4 held out" in output
    assert "steps     0 to 8, 3.2 epochs" in output
    assert "validation at step 8\n" in output and "of 4 samples have a lower PSNR than before" in output
    assert f"finished: {folder}/checkpoint-8, best validation at step 8 (val/psnr " in output
    own = output[output.index("refiner_ds 0") :]  # what the launcher says before is its own
    assert [line for line in own.splitlines() if "warning" in line.lower()] == [], "nothing that a user cannot act on"
    assert json.loads((folder / "finished.json").read_text()) == {"step": 8}
    state = read_state(folder)
    assert (state.state, state.step, state.steps, state.exit_code) == ("finished", 8, 8, 0)
    found = losses(folder)
    assert sorted(found) == list(range(1, 9))
    assert np.mean([found[7], found[8]]) < np.mean([found[1], found[2]]) - 0.05


def test_every_step_has_its_metrics_and_the_validation_its_pictures(whole):
    folder, _ = whole
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    names = {"train/loss", "train/loss_source", "train/loss_target", "train/lr", "train/grad_norm", "train/pairs_per_s"}
    steps = [line for line in lines if "train/loss" in line]
    assert all(names <= set(line) and line["train/images_seen"] == line["step"] * 8 for line in steps)
    quarters = {f"train/loss_t{number}" for number in (1, 2, 3, 4)}
    assert all(quarters & set(line) for line in steps) and quarters <= set().union(*steps)
    read = [line for line in lines if "train/mfu" in line]
    assert all(0 <= line[f"system/{platform.node()}/cpu"] <= 1 for line in read)
    assert [line["step"] for line in read] == [3, 4, 6, 8]
    for line in read:
        assert line["train/tflops"] > 0 and line["train/mfu"] > 0 and 0 <= line["train/data_wait"] <= 1
        assert 0.1 < line["train/memory_gb"] < 10
    assert all(1 <= line["train/rank_spread"] <= 2 for line in read[1:]), "from when each shape was met"
    validation = next(line for line in lines if "val/psnr" in line)
    assert validation["step"] == 8 and 0 < validation["val/ssim"] <= 1
    pictures = [line["picture"] for line in lines if "picture" in line]
    assert len(pictures) == 4
    render, *_ = np.hsplit(np.asarray(Image.open(folder / pictures[0])), 4)
    assert render.std() > 0


def test_the_optimizer_is_sharded_over_the_ranks(whole):
    folder, _ = whole
    sizes = [path.stat().st_size for path in sorted((folder / "checkpoint-8").glob("rank-*.safetensors"))]
    numbers = sum(weight.numel() for weight in weights_in(folder / "checkpoint-8").values())
    assert len(sizes) == 2
    for size in sizes:  # fp32 weights and two moments, half of each
        assert size == pytest.approx(numbers * 12 / 2, rel=0.05)


def test_the_run_is_one_mlflow_run_with_its_settings_and_metrics(whole, flags):
    from mlflow import MlflowClient

    folder, _ = whole
    client = MlflowClient(flags["--tracking_uri"])
    run_id = json.loads((folder / "tracking.json").read_text())["run_id"]
    experiment = client.get_experiment_by_name("refiner_ds")
    assert [r.info.run_id for r in client.search_runs([experiment.experiment_id]) if r.info.run_name == "whole"] == [
        run_id
    ]
    run = client.get_run(run_id)
    assert run.info.status == "FINISHED"
    assert run.data.tags["refiner_ds.checkpoint"] == f"step 8: {folder}/checkpoint-8"
    assert run.data.tags["refiner_ds.devices"] == "2 x CPU" and run.data.tags["refiner_ds.state"] == "finished"
    assert run.inputs.dataset_inputs[0].dataset.digest == run.data.params["identity.shards_digest"]
    assert (
        run.data.params["deepspeed.zero_optimization.stage"] == "2"
        and run.data.params["train.learning_rate"] == "0.002"
    )
    history = {metric.step: metric.value for metric in client.get_metric_history(run_id, "train/loss")}
    assert history == losses(folder)
    assert "val/psnr" in run.data.metrics
    assert any("validation" in artifact.path for artifact in client.list_artifacts(run_id, "images"))


def test_a_killed_run_continues_with_the_very_losses_of_the_whole_one(whole, flags, tmp_path):
    folder = tmp_path / "run"
    settings = {**flags, "--output_dir": folder, "--deepspeed_config": ZERO2, "--max_train_steps": 8}
    settings |= {"--checkpointing_steps": 2, "--checkpoints_total_limit": 1}
    kill_once(deepspeed("--module", "refiner_ds.train"), settings, folder / "checkpoint-4" / "commit.json")
    assert not (folder / "finished.json").exists()
    again = start(deepspeed("--module", "refiner_ds.train"), settings)
    assert again.returncode == 0, again.stdout[-3000:]
    assert "continuing from" in again.stdout
    assert losses(folder) == losses(whole[0])  # to the last bit
    assert [path.name for path in folder.glob("*checkpoint-*")] == ["checkpoint-8"]


@pytest.mark.parametrize("launcher", ["accelerate", pytest.param("torchrun", marks=pytest.mark.long), "srun"])
def test_every_launcher_computes_what_deepspeed_does(whole, flags, tmp_path, launcher):
    folder = tmp_path / "run"
    settings = {**flags, "--max_train_steps": 3, "--deepspeed_config": ZERO2}
    if launcher == "srun":
        (code, output), (other, _) = srun(settings, folder, free_port())
        assert (code, other) == (0, 0), output[-3000:]
    else:
        if launcher == "accelerate":
            del settings["--deepspeed_config"]  # accelerate hands its own on, by the environment
        started = accelerate(tmp_path) if launcher == "accelerate" else torchrun()
        done = start(started, {**settings, "--output_dir": folder})
        assert done.returncode == 0, done.stdout[-3000:]
        assert not (REPO / ".deepspeed_env").exists(), "accelerate's pdsh mode, which leaves one, is not ours"
    expected = losses(whole[0])
    assert losses(folder) == {step: expected[step] for step in (1, 2, 3)}  # to the last bit
    assert sorted(path.name for path in (folder / "logs").iterdir()) == ["rank-00000.log", "rank-00001.log"]


def test_plain_python_goes_on_alone_where_two_ranks_were(whole, flags, tmp_path):
    folder = tmp_path / "run"
    folder.mkdir()
    shutil.copy(whole[0] / "run.json", folder)
    shutil.copytree(whole[0] / "checkpoint-4", folder / "checkpoint-4")
    settings = {**flags, "--output_dir": folder, "--deepspeed_config": ZERO2, "--max_train_steps": 8}
    settings |= {"--gradient_accumulation_steps": 4}  # the same global batch on one rank
    done = start(["-m", "refiner_ds.train"], settings)
    assert done.returncode == 0, done.stdout[-3000:]
    assert "continuing from" in done.stdout and "note: num_ranks is 1, was 2" in done.stdout
    found, expected = losses(folder), losses(whole[0])
    assert sorted(found) == [5, 6, 7, 8]
    assert found[5] == pytest.approx(expected[5], rel=2e-3), "the same samples and noise"
    assert found == pytest.approx({step: expected[step] for step in found}, rel=2e-2)


@pytest.mark.long
@pytest.mark.parametrize("name", ["zero1_bf16", "zero2_bf16", "zero2_offload"])
def test_the_other_configurations_compute_the_same(whole, flags, tmp_path, name):
    config = REPO / "ds_configs" / f"{name}.json"
    settings = {**flags, "--output_dir": tmp_path / "run", "--deepspeed_config": config, "--max_train_steps": 3}
    done = start(deepspeed("--module", "refiner_ds.train"), settings)
    assert done.returncode == 0, done.stdout[-3000:]
    expected = losses(whole[0])
    assert losses(tmp_path / "run") == pytest.approx({step: expected[step] for step in (1, 2, 3)}, rel=2e-2)


def test_fp16_learns_as_fp32_does_with_its_scaled_loss(whole, flags, tmp_path):
    config = REPO / "ds_configs" / "zero2_fp16.json"
    settings = {**flags, "--output_dir": tmp_path / "run", "--deepspeed_config": config, "--max_train_steps": 4}
    done = start(deepspeed(str(REPO / "tests" / "train" / "fp16_on_cpu.py")), settings)
    assert done.returncode == 0, done.stdout[-3000:]
    metrics = read_metrics(tmp_path / "run")
    expected = losses(whole[0])
    assert metrics["train/loss"] == pytest.approx({step: expected[step] for step in (1, 2, 3, 4)}, rel=2e-2)
    assert metrics["train/loss_scale"][4] > 1 and metrics["train/skipped_steps"][4] == 0


def test_another_run_in_the_same_folder_is_refused_in_one_sentence(whole, flags, capsys):
    settings = {**flags, "--output_dir": whole[0], "--deepspeed_config": ZERO2, "--seed": 5}
    assert main(["train", *(str(part) for pair in settings.items() for part in pair)]) == 2
    assert "holds another run: its " in capsys.readouterr().err


def test_the_export_is_a_true_pipeline_that_repairs_and_is_evaluated(whole, shards, tmp_path, monkeypatch):
    monkeypatch.setattr("diffusers.utils.dynamic_modules_utils.HF_MODULES_CACHE", str(tmp_path / "modules"))
    folder, _ = whole
    model, output = tmp_path / "refiner", tmp_path / "evaluation"
    assert main(["export", str(folder), str(model)]) == 0
    pipeline = DiffusionPipeline.from_pretrained(model, trust_remote_code=True)
    assert pipeline.unet.config.in_channels == 8
    masters = weights_in(folder / "checkpoint-8")
    for name, weight in pipeline.unet.state_dict().items():
        assert torch.equal(weight, masters[name]), name
    assert not list(model.rglob("*.bin"))
    grey = Image.new("RGB", (50, 46), "grey")
    assert pipeline(grey, grey).images[0].size == (50, 46)

    rng = np.random.default_rng(0)
    for name in ("render", "cond"):
        Image.fromarray(rng.integers(0, 256, (50, 71, 3), dtype=np.uint8)).save(tmp_path / f"{name}.png")
    command = ["repair", "--model", model, "--num_inference_steps", 2, "--render", tmp_path / "render.png"]
    command += ["--cond", tmp_path / "cond.png", "--output"]
    for name in ("one.png", "two.png"):
        assert main([str(part) for part in [*command, tmp_path / name]]) == 0
    one, two = (np.asarray(Image.open(tmp_path / name)) for name in ("one.png", "two.png"))
    assert one.shape == (50, 71, 3) and np.array_equal(one, two)

    evaluate = [
        "evaluate",
        "--model",
        model,
        "--shards",
        shards,
        "--output",
        output,
        "--num_inference_steps",
        2,
        "--run",
        folder,
    ]
    assert main([str(part) for part in evaluate]) == 0
    figures = json.loads((output / "metrics.json").read_text())
    assert figures["samples"] == 4 and set(figures["render"]) == set(figures["repaired"]) == {"psnr", "ssim"}
    report = (output / "report.html").read_text()
    assert report.count("data:image/jpeg;base64,") == 4 * 4 and "<svg" in report
    assert "http://" not in report and "https://" not in report  # self-contained


def test_an_export_takes_the_base_from_where_it_is_now_and_only_the_one_that_was_trained(
    whole, tiny_base, tmp_path, capsys
):
    folder, _ = whole
    checkpoint = shutil.copytree(folder / "checkpoint-8", tmp_path / "checkpoint-8")
    commit = json.loads((checkpoint / "commit.json").read_text())
    commit["pretrained_model_name_or_path"] = str(tmp_path / "gone" / "base")
    later = ("trainable", "lora_rank", "prediction_type", "zero_terminal_snr", "revision", "variant")
    commit = {name: value for name, value in commit.items() if name not in later}  # as it was before these choices
    (checkpoint / "commit.json").write_text(json.dumps(commit))
    assert main(["export", str(checkpoint), str(tmp_path / "out")]) == 2
    assert "--pretrained_model_name_or_path names the base of the run where it is now" in capsys.readouterr().err
    base = ["--pretrained_model_name_or_path", str(tiny_base)]
    assert main(["export", str(checkpoint), str(tmp_path / "out"), *base]) == 0
    other = UnclipRefiner(str(tiny_base))
    for parameter in other.network.parameters():
        parameter.data += 0.01
    other.save(tmp_path / "other")
    base = ["--pretrained_model_name_or_path", str(tmp_path / "other")]
    assert main(["export", str(checkpoint), str(tmp_path / "mixed"), *base]) == 2
    assert "was trained from other weights than the base" in capsys.readouterr().err
    assert not (tmp_path / "mixed").exists()


@pytest.mark.parametrize("num_broken", [1, 2])
def test_broken_samples_are_replaced_told_and_counted_until_there_are_too_many(flags, shards, tmp_path, num_broken):
    damaged = shutil.copytree(shards, tmp_path / "shards")
    index = read_index(damaged)
    members = [index.member(int(row), "render") for row in index.rows("train")[3 : 3 + num_broken]]
    for member in members:
        with (damaged / member.shard).open("r+b") as file:
            file.seek(member.offset)
            file.write(b"broken")
    own = {"--shards": damaged, "--output_dir": tmp_path / "run", "--deepspeed_config": ZERO2, "--max_train_steps": 6}
    done = start(torchrun(), {**flags, **own, "--max_bad_samples": 1, "--logging_steps": 6})
    assert all(f"replaced: sample {member.name} in " in done.stdout for member in members), done.stdout[-3000:]
    if num_broken == 1:
        assert done.returncode == 0, done.stdout[-3000:]
        lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
        assert [line["train/bad_samples"] for line in lines if "train/bad_samples" in line][-1] == 1
    else:
        assert done.returncode != 0
        assert "2 broken samples are more than --max_bad_samples 1" in done.stdout
