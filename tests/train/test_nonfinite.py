"""A real NaN in one sample of two ranks: named, kept, stopped or skipped, replayed; and a loss scale that is used up.

The base computes NaN wherever the image embedding is not dropped, and the seed drops it for all samples but one.
"""

import json
import shutil

import pytest

from refiner_ds.checkpoint.state import SavedState
from refiner_ds.cli import main
from refiner_ds.refiners.unclip.objective import draw_few
from refiner_ds.refiners.unclip.options import Recipe
from refiner_ds.refiners.unclip.refiner import UnclipRefiner
from tests.train.launch import REPO, ZERO2, losses, start, torchrun

pytestmark = pytest.mark.slow
DROPOUT = 0.1428
GUILTY, SAMPLES = 10, 16
"""Position of the sample: of the third step, whose positions 10 and 11 are those of rank 1; samples of the run."""


def _is_lost(seed, position):
    _, (_, embedding, _) = draw_few(position, seed, 1000, Recipe(condition_dropout=DROPOUT))
    return bool(embedding)


def _seed():
    seeds = range(1_000_000)
    return next(seed for seed in seeds if all(_is_lost(seed, p) == (p == GUILTY) for p in range(SAMPLES)))


@pytest.fixture(scope="module")
def flags(shards, tiny_base, tmp_path_factory):
    """Runs of four steps of four samples, over a base whose class embedding overflows on all that is not zero."""
    base, refiner = tmp_path_factory.mktemp("fragile") / "base", UnclipRefiner(str(tiny_base))
    refiner.network.class_embedding.linear_1.weight.data.fill_(3e38)
    refiner.save(base)
    return {
        "--shards": shards,
        "--pretrained_model_name_or_path": base,
        "--buckets": "1.0:64x64,1.5:96x64",
        "--train_batch_size": 2,
        "--gradient_accumulation_steps": 1,
        "--learning_rate": 1e-3,
        "--condition_dropout_prob": DROPOUT,
        "--seed": _seed(),
        "--validation_epochs": 0,
        "--dataloader_num_workers": 0,
        "--max_train_steps": SAMPLES // 4,
        "--deepspeed_config": ZERO2,
        "--tracking_uri": f"sqlite:///{tmp_path_factory.mktemp('mlflow')}/mlflow.db",
    }


@pytest.fixture(scope="module")
def stopped(flags, tmp_path_factory):
    """A run that may skip nothing: its folder, and what was printed. Tests only read it."""
    folder = tmp_path_factory.mktemp("runs") / "run"
    done = start(torchrun(), {**flags, "--output_dir": folder})
    assert done.returncode != 0
    return folder, done.stdout


def _files(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def _event(folder):
    return folder / "nonfinite" / "step-00000003"


def _metrics(folder, name):
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return {line["step"]: line[name] for line in lines if name in line}


def test_a_lost_sample_is_named_alike_on_all_ranks_and_ends_the_run(stopped):
    folder, output = stopped
    event = json.loads((_event(folder) / "event.json").read_text())
    (suspect,) = event["suspects"]
    assert (event["step"], suspect["position"], suspect["rank"]) == (3, GUILTY, 1)
    assert suspect["losses"] == {"loss": "nan", "loss_source": "nan", "loss_target": "nan"}
    sentence = f"step 3: the loss is NaN or infinite for {suspect['key']} (timestep {suspect['drawn']['timestep']}"
    for rank in (0, 1):
        assert sentence in (folder / "logs" / f"rank-0000{rank}.log").read_text()
    assert f"`refiner-ds replay {_event(folder)}`" in output and "Traceback" not in output.split("torch/distributed")[0]
    assert not (folder / "finished.json").exists()


def test_the_weights_of_before_are_saved_and_the_event_is_not_counted_in_them(stopped):
    folder, _ = stopped
    (checkpoint,) = folder.glob("checkpoint-*")
    commit = json.loads((checkpoint / "commit.json").read_text())
    assert (commit["step"], commit["nonfinite_steps"]) == (2, 0)
    counters = SavedState(checkpoint).counters
    assert (counters["global_steps"], counters["skipped_steps"]) == (2, 0)


def test_the_same_command_stops_at_the_same_place_with_the_same_event(stopped, flags, tmp_path):
    folder = shutil.copytree(stopped[0], tmp_path / "run")
    shutil.rmtree(folder / "nonfinite")
    done = start(torchrun(), {**flags, "--output_dir": folder})
    assert done.returncode != 0 and "step 3: the loss is NaN or infinite" in done.stdout
    assert _files(folder / "nonfinite") == _files(stopped[0] / "nonfinite")
    assert _files(folder / "checkpoint-2") == _files(stopped[0] / "checkpoint-2")


def test_an_update_that_may_be_skipped_is_counted_and_the_run_goes_on(stopped, flags, tmp_path):
    folder = shutil.copytree(stopped[0], tmp_path / "run")
    done = start(torchrun(), {**flags, "--output_dir": folder, "--max_nonfinite_steps": 1})
    assert done.returncode == 0, done.stdout[-3000:]
    assert "and the update is skipped, 1 of --max_nonfinite_steps 1" in done.stdout
    assert (folder / "finished.json").exists()
    assert _metrics(folder, "train/nonfinite_steps") == {3: 1} and _metrics(folder, "train/skipped_steps")[4] == 1
    assert losses(folder)[4] > 0
    commit = json.loads((folder / "checkpoint-4" / "commit.json").read_text())
    assert commit["nonfinite_steps"] == 1  # from where a run that continues counts on
    masters = SavedState(folder / "checkpoint-4")
    assert all(masters.whole(name).isfinite().all() for name in masters.shapes)


def test_replay_names_the_guilty_and_where_it_begins(stopped, tmp_path, capsys):
    folder, _ = stopped
    assert main(["replay", str(_event(folder)), "--device", "cpu", "--json", str(tmp_path / "replay.json")]) == 0
    told = json.loads((tmp_path / "replay.json").read_text())
    (suspect,) = told["suspects"]
    assert told["weights_of_step"] == 2 and suspect["is_guilty"]
    assert suspect["first_not_finite"] == "class_embedding.linear_1" and suspect["gradient_norm"] == "nan"
    printed = capsys.readouterr().out.splitlines()
    assert printed[0] == f"weights of {folder / 'checkpoint-2'}" and len(printed) == 4
    assert printed[-1].startswith(f"guilty: {suspect['key']} (timestep {suspect['drawn']['timestep']}")


def test_replay_says_where_weights_are_not_those_of_the_update(stopped, tmp_path, capsys):
    run = shutil.copytree(stopped[0], tmp_path / "run")
    older = (run / "checkpoint-2").rename(run / "checkpoint-1")
    commit = json.loads((older / "commit.json").read_text())
    (older / "commit.json").write_text(json.dumps({**commit, "step": 1}))
    assert main(["replay", str(_event(run)), "--device", "cpu"]) == 0
    assert "checkpoint-1, and not of step 2 as in the update, so what is found may differ" in capsys.readouterr().out
    shutil.rmtree(older)
    assert main(["replay", str(_event(run)), "--device", "cpu"]) == 2
    assert "has no complete checkpoint of step 2 or before" in capsys.readouterr().err
    assert main(["replay", str(_event(run)), "--checkpoint", str(run)]) == 2
    assert f"--checkpoint {run} is no complete checkpoint" in capsys.readouterr().err


def test_overflows_are_no_events_until_the_loss_scale_is_at_its_minimum(flags, tiny_base, tmp_path):
    config, folder = tmp_path / "zero.json", tmp_path / "run"
    scale = {"initial_scale_power": 40, "min_loss_scale": 2**38, "hysteresis": 1}
    sections = {"fp16": {"enabled": True, **scale}, "data_types": {"grad_accum_dtype": "fp32"}}
    config.write_text(json.dumps({**sections, "zero_optimization": {"stage": 2}}))
    own = {"--output_dir": folder, "--deepspeed_config": config, "--pretrained_model_name_or_path": tiny_base}
    done = start([str(REPO / "tests" / "train" / "fp16_on_cpu.py")], {**flags, **own, "--max_train_steps": 9})
    assert done.returncode == 2, done.stdout[-3000:]
    assert "step 3: gradients overflow in fp16 at loss scale 2.74878e+11, which is min_loss_scale" in done.stdout
    assert "train on in bf16" in done.stdout and "Traceback" not in done.stdout
    assert _metrics(folder, "train/skipped_steps") == {1: 1, 2: 2, 3: 3} and not (folder / "nonfinite").exists()
    counters = SavedState(folder / "checkpoint-2").counters  # as they were before the update that ended it
    assert counters["skipped_steps"] == 2 and counters["scaler"]["cur_scale"] == 2**38
