"""The plan of a run: what makes two commands one run, and what is refused before any network exists."""

from dataclasses import replace
from pathlib import Path

import pytest

from refiner_ds.config.verbs import Train
from refiner_ds.errors import UserError
from refiner_ds.train.plan import make_plan
from refiner_ds.world import World

CONFIGS = Path(__file__).parents[2] / "ds_configs"


@pytest.fixture
def flags(shards, tmp_path) -> Train:
    """Flags of a run on the shared shards; nothing of its base but the folder exists."""
    (tmp_path / "base").mkdir()
    return Train(
        shards=shards,
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
