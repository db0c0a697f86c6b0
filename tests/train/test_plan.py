"""The plan of a run: what makes two commands one run, and what is refused before any network exists."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from refiner_ds.config.training import Train
from refiner_ds.data.buckets import parse_buckets
from refiner_ds.data.packing.recode import Recoding
from refiner_ds.errors import UserError
from refiner_ds.train.plan import make_plan
from refiner_ds.world import World

CONFIGS = Path(__file__).parents[2] / "ds_configs"


@pytest.fixture
def flags(shards, tmp_path) -> Train:
    """Flags of a run on the shared shards; nothing of its base but the folder exists."""
    (tmp_path / "base").mkdir()
    return Train(
        shards=str(shards),
        pretrained_model_name_or_path=str(tmp_path / "base"),
        output_dir=tmp_path / "run",
        deepspeed_config=CONFIGS / "zero2_bf16.json",
        gradient_accumulation_steps=2,
        buckets="1.0:64x64,1.5:96x64",
    )


def test_a_base_is_the_same_however_its_path_is_written(flags, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    bases = ("base", "./base", "base/", "../" + tmp_path.name + "/base", str(tmp_path / "base"))
    identities = [make_plan(replace(flags, pretrained_model_name_or_path=base), World()).identity for base in bases]
    assert identities == [identities[0]] * len(bases)
    assert identities[0]["pretrained_model_name_or_path"] == str((tmp_path / "base").resolve())


def test_a_hub_id_stays_what_it_is(flags):
    plan = make_plan(replace(flags, pretrained_model_name_or_path="sd2-community/unclip"), World())
    assert plan.identity["pretrained_model_name_or_path"] == "sd2-community/unclip"


def test_a_flag_beyond_its_limit_is_refused(flags):
    with pytest.raises(UserError, match=r"--learning_rate 0\.0 lets nothing be learned"):
        make_plan(replace(flags, learning_rate=0.0, lr_scheduler="polynomial"), World())


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"export_best": True}, "--export_best"),
        ({"best_metric": "ssim"}, "--best_metric ssim"),
        ({"keep_best": 2, "checkpoints_total_limit": 3}, "--keep_best 2"),
    ],
)
def test_what_needs_a_validation_is_refused_where_none_will_be_made(
    flags, manifest, pack_dataset, tmp_path, given, told
):
    assert make_plan(replace(flags, **given), World()).times.validation
    with pytest.raises(UserError, match=f"{told} would have no effect, as --validation_epochs 0 makes no validations"):
        make_plan(replace(flags, **given, validation_epochs=0), World())
    pack_dataset(manifest, tmp_path / "all", val=0)
    all_trained = replace(flags, shards=str(tmp_path / "all"))
    assert make_plan(all_trained, World()).times.validation == 0
    with pytest.raises(UserError, match=f"{told} would have no effect, as shards .* hold no samples to validate on"):
        make_plan(replace(all_trained, **given), World())


def test_how_crops_are_resized_makes_another_run(flags):
    identities = [make_plan(replace(flags, resampling=name), World()) for name in ("exact", "window")]
    assert [plan.identity["resampling"] for plan in identities] == ["exact", "window"]
    assert [plan.samples.resampling for plan in identities] == ["exact", "window"]


def test_shards_that_were_resized_to_other_buckets_are_refused(flags, manifest, pack_dataset, tmp_path):
    buckets = parse_buckets("1.0:64x64,1.5:96x64")
    pack_dataset(manifest, tmp_path / "resized", recoding=Recoding("npy", buckets=buckets))
    resized = replace(flags, shards=str(tmp_path / "resized"))
    assert make_plan(resized, World()).samples.buckets == buckets
    words = r"--buckets 1.0:64x64,1.5:90x60 differs from 1.0:64x64,1.5:96x64, to which the pictures in .* were resized"
    with pytest.raises(UserError, match=words):
        make_plan(replace(resized, buckets="1.0:64x64,1.5:90x60"), World())


def test_a_url_is_the_same_run_as_its_folder_and_only_the_first_rank_says_that_it_is_slow(flags, capsys, tmp_path):
    elsewhere = replace(flags, shards=f"file://{flags.shards}")
    plans = [make_plan(elsewhere, World(rank, 2, rank, 2)) for rank in range(2)]
    assert capsys.readouterr().err.count("are read without a cache, each picture by a request of its own") == 1
    assert {json.dumps(plan.identity) for plan in plans} == {json.dumps(make_plan(flags, World(0, 2, 0, 2)).identity)}
    cached = replace(elsewhere, shard_cache=tmp_path / "cache", shard_cache_limit="1GB")
    assert make_plan(cached, World()).shards.location == f"file://{flags.shards}" and not capsys.readouterr().err
    with pytest.raises(UserError, match=r"--shard_cache .* would have no effect"):
        make_plan(replace(flags, shard_cache=tmp_path / "cache", shard_cache_limit="1GB"), World())


def write_config(folder: Path, **sections: object) -> Path:
    """A DeepSpeed JSON with these sections beside ZeRO-2 in bf16."""
    path = folder / "zero.json"
    path.write_text(json.dumps({"bf16": {"enabled": True}, "zero_optimization": {"stage": 2}, **sections}))
    return path


def test_the_sections_of_a_json_make_optimizer_and_schedule(flags, tmp_path):
    optimizer = {"type": "SGD", "params": {"lr": 0.1, "momentum": 0.9}}
    scheduler = {"type": "WarmupDecayLR", "params": {"warmup_num_steps": 4, "warmup_type": "linear"}}
    config = write_config(tmp_path, optimizer=optimizer, scheduler=scheduler)
    plan = make_plan(replace(flags, deepspeed_config=config, max_train_steps=8), World())
    assert (plan.resolved.optimizer.name, plan.resolved.optimizer.params) == ("SGD", {"momentum": 0.9})
    expected = [0.0, 0.025, 0.05, 0.075, 0.1, 0.075, 0.05, 0.025]
    assert [plan.schedule(step) for step in range(8)] == pytest.approx(expected)
    assert plan.optimizer_cut["optimizer"] == "SGD"


def test_the_rate_is_scaled_by_the_global_batch_wherever_it_comes_from(flags, tmp_path):
    config = write_config(tmp_path, optimizer={"type": "SGD", "params": {"lr": 0.1}})
    for given, peak in (({}, 1e-4), ({"learning_rate": 1e-3}, 1e-3), ({"deepspeed_config": config}, 0.1)):
        plan = make_plan(replace(flags, scale_lr=True, train_batch_size=2, **given), World())
        assert plan.learning_rate == plan.schedule(0) == pytest.approx(peak * 4)


def test_sections_that_torch_would_not_take_are_refused_before_anything_is_started(flags, tmp_path):
    config = write_config(tmp_path, optimizer={"type": "SGD", "params": {"momentun": 0.9}})
    with pytest.raises(UserError, match=r"optimizer.params.momentun in the DeepSpeed JSON is no parameter of SGD"):
        make_plan(replace(flags, deepspeed_config=config), World())
    config = write_config(tmp_path, scheduler={"type": "StepLR"})
    with pytest.raises(UserError, match=r"scheduler.params in the DeepSpeed JSON makes no StepLR"):
        make_plan(replace(flags, deepspeed_config=config), World())
