"""`refiner-ds plan` as a person types it: the table, the JSON, and one sentence for each mistake."""

import json
from pathlib import Path

import pytest

from refiner_ds.cli import main
from tests.estimate.test_time import made_run

CONFIGS = Path(__file__).parents[2] / "ds_configs"
BUCKETS = "1.0:64x64,1.5:96x64"
TINY = ["--size", "tiny", "--buckets", BUCKETS]


@pytest.fixture
def planned(capsys):
    """`planned(*arguments)` gives the JSON of a plan."""

    def plan(*arguments: object) -> dict:
        assert main(["plan", *map(str, arguments), "--json", "-"]) == 0
        return json.loads(capsys.readouterr().out)

    return plan


def total_of(told: dict, name: str) -> int:
    return next(column["bill"]["total"] for column in told["columns"] if column["name"] == name)


def test_a_base_and_its_shapes_give_one_plan(planned, tiny_base):
    told = planned("--pretrained_model_name_or_path", tiny_base, "--buckets", BUCKETS, "--ranks", 8)
    shapes = planned(*TINY, "--ranks", 8)
    assert {**told, "base": ""} == {**shapes, "base": ""}


def test_the_length_is_that_of_the_shards(planned, shards):
    batch = ["--ranks", 2, "--train_batch_size", 2, "--gradient_accumulation_steps", 1]
    told = planned(*TINY, "--shards", shards, *batch, "--num_train_epochs", 3, "--checkpointing_steps", 10)
    assert told["run"] == {
        "micro_batch_size": 2, "accumulation_steps": 1, "global_batch_size": 4,
        "steps": 15, "epochs": 3.0, "samples": 20, "pairs": 60,
    }  # fmt: skip
    assert told["disk"]["count"] == 2 and told["disk"]["most"] == 2 * told["disk"]["one"]
    shorter = planned(*TINY, "--shards", shards, *batch, "--max_train_steps", 5)
    assert (shorter["run"]["steps"], shorter["run"]["epochs"]) == (5, 1.0)


def test_hours_come_from_a_rate_of_one_rank_or_from_an_earlier_run(planned, tmp_path):
    length = [*TINY, "--ranks", 4, "--max_train_steps", 900, "--gradient_accumulation_steps", 4]
    assert planned(*length, "--pairs_per_second", 2)["hours"] == pytest.approx(900 * 16 / 8 / 3600)
    run = made_run(tmp_path / "run", [6.0, 4.0, 2.0], ranks=2)
    assert planned(*length, "--rate_from", run)["hours"] == pytest.approx(900 * 16 / 8 / 3600)


def test_options_change_what_they_name_and_nothing_else(planned):
    plain = planned(*TINY)
    assert plain["hours"] is None
    less = planned(*TINY, "--gradient_checkpointing")
    assert total_of(less, "ZeRO-2") < total_of(plain, "ZeRO-2")
    assert less["batches"] == plain["batches"] and less["counts"] == plain["counts"]
    some = planned(*TINY, "--gradient_checkpointing", "--checkpointed_blocks", "attention")
    assert total_of(less, "ZeRO-2") < total_of(some, "ZeRO-2") < total_of(plain, "ZeRO-2")
    assert [told["checkpointed"] for told in (plain, some, less)] == ["nothing", "attention", "all"]
    low_rank = planned(*TINY, "--lora_rank", 4, "--trainable", "attention")
    assert low_rank["counts"]["trained"] < plain["counts"]["trained"] / 50
    assert low_rank["disk"]["one"] * 50 < plain["disk"]["one"]
    kept, trained = planned(*TINY, "--use_ema", "--use_8bit_adam"), plain["counts"]["trained"]
    assert kept["disk"]["one"] - plain["disk"]["one"] == (4 - 6) * trained
    assert total_of(kept, "ZeRO-2") - total_of(plain, "ZeRO-2") == (4 - 6) * trained
    single = planned(*TINY, "--mixed_precision", "no")
    assert single["batches"]["nothing"][0]["kept"] > 1.8 * plain["batches"]["nothing"][0]["kept"]


def test_a_link_gives_the_seconds_of_the_traffic(planned):
    told = planned("--size", "full", "--buckets", "1.0:64x64", "--ranks", 8, "--link_gigabits", 25)
    trained, exchange = told["counts"]["trained"], told["exchange"]
    # by hand: ZeRO-2 all-reduces 20 times 2 bytes a weight, ZeRO-1 reduces and scatters them once; both gather 2
    assert exchange["ZeRO-2"]["seconds"] == pytest.approx((2 * 40 + 2) * trained * 7 / 8 * 8 / 25e9)
    assert exchange["ZeRO-1"]["seconds"] == pytest.approx((2 + 2) * trained * 7 / 8 * 8 / 25e9)
    assert planned(*TINY, "--ranks", 8)["exchange"]["ZeRO-1"]["seconds"] is None


def test_the_largest_crop_comes_first_and_counts(planned):
    told = planned("--size", "tiny", "--buckets", "1.0:64x64,1.5:192x128,2.0:256x128")
    assert [batch["crop"] for batch in told["batches"]["nothing"]] == [128, 64]
    assert told["columns"][0]["bill"]["backward"]["activations"] == told["batches"]["nothing"][0]["kept"]


@pytest.mark.parametrize("config", ["zero1_bf16.json", "zero2_fp16.json", "zero2_offload.json"])
def test_a_configuration_is_planned_as_itself(planned, config):
    told = planned(*TINY, "--ranks", 2, "--deepspeed_config", CONFIGS / config)
    yours = [column["name"] for column in told["columns"] if column["is_yours"]]
    assert yours == [f"ZeRO-{config[4]}{' offload' if 'offload' in config else ''}"]


@pytest.mark.parametrize(
    ("memory", "more", "file"),
    [
        ("80GB", ["--ranks", "8"], "zero1_bf16.json"),
        ("16GB", [], "zero2_offload.json"),
    ],
)
def test_the_advised_file_is_there_and_is_the_one_for_the_memory(planned, memory, more, file):
    told = planned("--size", "full", "--buckets", "1.0:512x512", "--gpu_memory", memory, *more)
    assert told["advice"]["file"] == file
    assert (CONFIGS / file).exists()


def test_the_table_says_what_is_refused_and_what_to_take(capsys, tmp_path):
    arguments = [*TINY, "--ranks", "64", "--gpu_memory", "80GB", "--max_train_steps", "10", "--pairs_per_second", "1",
                 "--link_gigabits", "0.1"]  # fmt: skip
    assert main(["plan", *arguments, "--json", str(tmp_path / "new" / "plan.json")]) == 0
    told = capsys.readouterr().out
    for words in (
        "7,172,900 weights trained", "global batch 1280 = micro-batch 1 x accumulation 20 x 64 ranks", "ZeRO-0*",
        "ZeRO-3*", "* ZeRO-0: refused by training", "yours: ZeRO-2", "= forth and back", "64x64", "12,800 pairs",
        "pairs/s and rank", "ZeRO-2 286.92 MB reduced", "sent in 46.3 s at 0.1 Gb/s",
        "take ds_configs/zero1_bf16.json in 90% of",
        "checkpoints: 86.07 MB each, at most 1 at once", "a rank takes 1.34 MB of its host's memory, pinned with a GPU",
        "host: snapshot for checkpoints",
    ):  # fmt: skip
        assert words in told, words
    assert json.loads((tmp_path / "new" / "plan.json").read_text())["ranks"] == 64
    assert max(map(len, told.splitlines())) < 200


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "give --pretrained_model_name_or_path or --size, one of them"),
        ([*TINY, "--pretrained_model_name_or_path", "base"], "two things say which shapes"),
        ([*TINY, "--ranks", "0"], "--ranks 0 leaves nobody to train; give"),
        ([*TINY, "--link_gigabits", "0"], "--link_gigabits 0 is no rate that anything could be sent at; give"),
        ([*TINY, "--gpu_memory", "big"], "--gpu_memory big is no number of bytes"),
        ([*TINY, "--gpu_memory", "80"], "--gpu_memory 80 is less than any GPU has; give"),
        ([*TINY, "--pairs_per_second", "1", "--rate_from", "run"], "only one can hold; leave one out"),
        ([*TINY, "--pairs_per_second", "0"], "--pairs_per_second 0.0 trains nothing; give"),
        ([*TINY, "--rate_from", "nowhere"], "--rate_from nowhere holds no run"),
        ([*TINY, "--train_batch_size", "0"], "leaves no sample to train on; give"),
        ([*TINY, "--checkpoints_total_limit", "0"], "--checkpoints_total_limit 0 leaves no checkpoint"),
        ([*TINY, "--deepspeed_config", "nowhere.json"], "nowhere.json cannot be read"),
        (["--size", "tiny", "--buckets", "1.0:65x65"], "crops of 65 pixels are no whole number of latents of 4"),
        (["--size", "tiny", "--buckets", "64x64"], "is no KEY:WIDTHxHEIGHT"),
        (["--pretrained_model_name_or_path", "./nowhere"], "is no folder, so there are no networks to load"),
    ],
)
def test_a_mistake_is_told_in_one_sentence(capsys, arguments, words):
    assert main(["plan", *arguments]) == 2
    told = capsys.readouterr()
    assert words in told.err and len(told.err.splitlines()) == 1 and told.out == ""


def test_a_bucket_without_a_size_is_refused(capsys, tmp_path):
    config = json.loads((CONFIGS / "zero2_bf16.json").read_text())
    config["zero_optimization"]["reduce_bucket_size"] = "large"
    (tmp_path / "ds.json").write_text(json.dumps(config))
    assert main(["plan", *TINY, "--deepspeed_config", str(tmp_path / "ds.json")]) == 2
    assert 'reduce_bucket_size "large" in the DeepSpeed JSON is no number' in capsys.readouterr().err


@pytest.mark.parametrize("stage", [0, 3])
def test_a_stage_that_training_refuses_is_refused_as_yours(capsys, tmp_path, stage):
    (tmp_path / "ds.json").write_text(json.dumps({"zero_optimization": {"stage": stage}}))
    assert main(["plan", *TINY, "--deepspeed_config", str(tmp_path / "ds.json")]) == 2
    assert f"zero_optimization.stage {stage} is not supported" in capsys.readouterr().err


def test_ranks_that_cannot_share_the_global_batch_are_refused(capsys, tmp_path):
    config = json.loads((CONFIGS / "zero2_bf16.json").read_text()) | {"train_batch_size": 100}
    (tmp_path / "ds.json").write_text(json.dumps(config))
    assert main(["plan", *TINY, "--ranks", "3", "--deepspeed_config", str(tmp_path / "ds.json")]) == 2
    assert "train_batch_size 100 (DeepSpeed's global batch) is not micro-batch" in capsys.readouterr().err


def test_shards_too_small_for_a_global_batch_are_refused(capsys, shards):
    assert main(["plan", *TINY, "--shards", str(shards), "--ranks", "64"]) == 2
    assert "hold 20 training samples and one global batch takes 1280" in capsys.readouterr().err


def test_a_base_with_a_broken_config_is_told_in_one_sentence(capsys, tmp_path):
    (tmp_path / "unet").mkdir()
    assert main(["plan", "--pretrained_model_name_or_path", str(tmp_path)]) == 2
    told = capsys.readouterr().err
    assert "cannot be loaded" in told and len(told.splitlines()) == 1
