"""The DeepSpeed JSON and the flags: who owns which number, what "auto" becomes, what is refused and in which words."""

import copy
import itertools
from pathlib import Path

import pytest

from refiner_ds.config.deepspeed import read_json, resolve
from refiner_ds.config.training import Train
from refiner_ds.errors import UserError

CONFIGS = sorted((Path(__file__).parents[2] / "ds_configs").glob("*.json"))
ZERO2 = {"zero_optimization": {"stage": 2}}
BF16 = {**ZERO2, "bf16": {"enabled": True}}
ONLY_FP16 = {**ZERO2, "fp16": {"enabled": True, "initial_scale_power": 12}}
OPEN = {**ZERO2, "bf16": {"enabled": "auto"}, "fp16": {"enabled": "auto"}}


def flags(**given: object) -> Train:
    """The flags of a run with only these given."""
    return Train("shards", "base", Path("run"), **given)


def values_of(config: object) -> list[object]:
    """Every value in nested objects."""
    return [v for value in config.values() for v in values_of(value)] if isinstance(config, dict) else [config]


def test_there_are_configurations_to_check():
    assert {"zero2_bf16.json", "zero2_fp16.json", "zero1_bf16.json", "zero2_offload.json"} <= {p.name for p in CONFIGS}


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_every_shipped_configuration_resolves_with_default_flags(path):
    resolved = resolve(read_json(path), flags(), num_ranks=4)
    named = [precision for precision in ("bf16", "fp16") if precision in path.stem]
    assert resolved.precision == (named[0] if named else "no" if "fp32" in path.stem else "bf16")
    assert resolved.stage == int(path.stem.split("zero")[1][0])
    assert (resolved.micro_batch_size, resolved.accumulation_steps, resolved.global_batch_size) == (1, 20, 80)
    assert "auto" not in values_of(resolved.json) and resolved.json["gradient_clipping"] == 1.0


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_every_shipped_configuration_is_told_when_to_take_it(path):
    rows = [
        line for line in (path.parent / "README.md").read_text().splitlines() if line.startswith(f"| `{path.name}` |")
    ]
    assert len(rows) == 1 and len(rows[0].split("|")[2].strip()) > 20


def test_the_global_batch_is_micro_batch_times_accumulation_times_ranks():
    for micro, accumulation, ranks in itertools.product((1, 2, 3, 16), (1, 2, 5, 20), (1, 2, 8, 64)):
        resolved = resolve(BF16, flags(train_batch_size=micro, gradient_accumulation_steps=accumulation), ranks)
        assert resolved.global_batch_size == resolved.json["train_batch_size"] == micro * accumulation * ranks
        assert (resolved.micro_batch_size, resolved.accumulation_steps) == (micro, accumulation)
        assert resolved.json["train_micro_batch_size_per_gpu"] == micro


@pytest.mark.parametrize("said", ["auto", None])
def test_flags_fill_what_the_json_leaves_open(said):
    names = ("train_micro_batch_size_per_gpu", "gradient_accumulation_steps", "gradient_clipping", "train_batch_size")
    config = {**BF16, **({} if said is None else dict.fromkeys(names, said))}
    resolved = resolve(config, flags(train_batch_size=3, gradient_accumulation_steps=2, max_grad_norm=0.5), 2)
    assert [resolved.json[name] for name in names] == [3, 2, 0.5, 12]
    assert isinstance(resolved.json["zero_optimization"]["reduce_bucket_size"], int)


def test_an_explicit_json_value_stands_and_an_equal_flag_is_no_contradiction():
    config = {**BF16, "train_micro_batch_size_per_gpu": 4, "gradient_clipping": 2, "train_batch_size": 16}
    for given in ({}, {"train_batch_size": 4, "max_grad_norm": 2.0, "mixed_precision": "bf16"}):
        resolved = resolve(config, flags(gradient_accumulation_steps=2, **given), 2)
        assert (resolved.micro_batch_size, resolved.json["gradient_clipping"]) == (4, 2)


def test_what_has_nothing_to_do_with_us_goes_through_and_nothing_is_changed_in_place():
    config = {**OPEN, "zero_optimization": {"stage": 1, "reduce_bucket_size": 7}, "dump_state": False}
    before = copy.deepcopy(config)
    resolved = resolve(config, flags(), 1)
    assert config == before
    assert resolved.json["dump_state"] is False and resolved.json["zero_optimization"]["reduce_bucket_size"] == 7


@pytest.mark.parametrize(
    ("key", "owned", "given"),
    [
        ("train_micro_batch_size_per_gpu", 4, ("train_batch_size", 2)),
        ("gradient_accumulation_steps", 8, ("gradient_accumulation_steps", 2)),
        ("gradient_clipping", 1.0, ("max_grad_norm", 0.5)),
    ],
)
def test_a_flag_that_contradicts_the_json_is_refused_by_both_names(key, owned, given):
    flag, value = given
    words = (
        rf'--{flag} {value} contradicts {key} {owned} in the DeepSpeed JSON.*leave the flag out, or set "{key}": "auto"'
    )
    with pytest.raises(UserError, match=words):
        resolve({**BF16, key: owned}, flags(**{flag: value}), 1)


def test_a_global_batch_that_is_not_the_product_is_refused_with_the_sum():
    config = {**BF16, "train_batch_size": 64}
    words = r'train_batch_size 64 .*micro-batch 2 x accumulation 4 x 2 ranks = 16; set it to "auto"'
    with pytest.raises(UserError, match=words):
        resolve(config, flags(train_batch_size=2, gradient_accumulation_steps=4), 2)


@pytest.mark.parametrize("name", ["train_batch_size", "gradient_accumulation_steps"])
@pytest.mark.parametrize("value", [0, -2])
def test_a_batch_without_samples_is_refused(name, value):
    with pytest.raises(UserError, match=rf"--{name} {value} leaves no sample to train on; give a whole number"):
        resolve(BF16, flags(**{name: value}), 1)


@pytest.mark.parametrize(
    ("config", "flag", "precision"),
    [
        (BF16, None, "bf16"),
        (BF16, "bf16", "bf16"),
        (ONLY_FP16, None, "fp16"),
        ({**BF16, "fp16": {"enabled": False}}, None, "bf16"),
        (ZERO2, None, "no"),
        (ZERO2, "no", "no"),
        (OPEN, None, "bf16"),
        (OPEN, "bf16", "bf16"),
        (OPEN, "fp16", "fp16"),
        (OPEN, "no", "no"),
        ({**ZERO2, "fp16": {"enabled": "auto"}}, "fp16", "fp16"),
    ],
)
def test_precision_comes_from_the_json_and_where_it_is_open_from_the_flag(config, flag, precision):
    resolved = resolve(config, flags(mixed_precision=flag), 1)
    assert resolved.precision == precision
    enabled = {name: resolved.json[name]["enabled"] for name in ("bf16", "fp16") if name in resolved.json}
    assert enabled == {name: name == precision for name in enabled}
    if "initial_scale_power" in config.get("fp16", {}):
        assert resolved.json["fp16"]["initial_scale_power"] == 12


@pytest.mark.parametrize(
    ("config", "flag", "allowed"),
    [(BF16, "fp16", "bf16"), (BF16, "no", "bf16"), (ZERO2, "bf16", "no"), (ONLY_FP16, "bf16", "fp16")],
)
def test_a_precision_that_contradicts_the_json_is_refused_by_both_names(config, flag, allowed):
    words = rf"--mixed_precision {flag} contradicts the DeepSpeed JSON, whose sections allow {allowed}; leave the flag"
    with pytest.raises(UserError, match=words):
        resolve(config, flags(mixed_precision=flag), 1)


TRANSFORMERS = {
    "bf16": {"enabled": "auto"},
    "fp16": {"enabled": "auto", "loss_scale": 0, "initial_scale_power": 16},
    "optimizer": {"type": "AdamW", "params": dict.fromkeys(("lr", "betas", "eps", "weight_decay"), "auto")},
    "scheduler": {
        "type": "WarmupLR",
        "params": dict.fromkeys(("warmup_min_lr", "warmup_max_lr", "warmup_num_steps"), "auto"),
    },
    "zero_optimization": {"stage": 2, "offload_optimizer": {"device": "cpu", "pin_memory": True}},
    **dict.fromkeys(("gradient_accumulation_steps", "gradient_clipping", "train_batch_size"), "auto"),
}
"""The ZeRO-2 configuration that the pages of transformers and accelerate show."""


def test_a_configuration_as_transformers_shows_it_is_taken_and_its_sections_stay_with_us():
    resolved = resolve(TRANSFORMERS, flags(learning_rate=3e-4, lr_warmup_steps=7, adam_beta2=0.99), 2)
    assert resolved.learning_rate == 3e-4
    assert (resolved.optimizer.name, resolved.optimizer.params["betas"]) == ("AdamW", [0.9, 0.99])
    assert (resolved.schedule.name, resolved.schedule.params["warmup_num_steps"]) == ("WarmupLR", 7)
    assert not {"optimizer", "scheduler"} & resolved.json.keys()
    assert resolved.json["zero_force_ds_cpu_optimizer"] is False  # with which DeepSpeed would refuse ours
    assert resolved.json["zero_allow_untested_optimizer"] is True


@pytest.mark.parametrize("stage", [0, 3])
def test_a_stage_that_trains_wrongly_or_saves_nothing_is_refused(stage):
    words = rf"zero_optimization.stage {stage} is not supported.*take stage 1 or 2"
    with pytest.raises(UserError, match=words):
        resolve({**BF16, "zero_optimization": {"stage": stage}}, flags(), 1)


@pytest.mark.parametrize(
    ("config", "name", "remedy"),
    [
        ({"torch_autocast": {"enabled": True}}, "torch_autocast", "use bf16 or fp16"),
        ({"bf16": {"enabled": True, "check_grad_overflow": False}}, "bf16.check_grad_overflow", "weights; remove it"),
        ({"optimizer": {"type": "Muon"}}, "optimizer.type Muon", "cannot handle convolutions; remove the section"),
        (
            {"zero_force_ds_cpu_optimizer": True},
            "zero_force_ds_cpu_optimizer",
            "compiles an extension; set it to false",
        ),
        ({"zero_optimization": {"stage": 2, "zenflow": {}}}, "zero_optimization.zenflow", "convolutions; remove it"),
        (
            {"zero_optimization": {"elastic_checkpoint": 1}},
            "zero_optimization.elastic_checkpoint",
            "cannot be loaded; remove",
        ),
        ({"checkpoint": {"writer": {"type": "fast"}}}, "checkpoint.writer", "fail to save or to load; remove it"),
        ({"wall_clock_breakdown": True}, "wall_clock_breakdown", "set it to false, and see train/tflops"),
    ],
)
def test_what_is_known_to_go_wrong_is_refused_by_its_name(config, name, remedy):
    with pytest.raises(UserError, match=rf"^{name} in the DeepSpeed JSON is refused: .*{remedy}"):
        resolve({**BF16, **config}, flags(), 1)


def test_two_precisions_and_unknown_autos_are_refused_by_name():
    with pytest.raises(UserError, match=r"enables both bf16 and fp16.*disable one"):
        resolve({**BF16, "fp16": {"enabled": True}}, flags(), 1)
    config = {**BF16, "zero_optimization": {"stage": 2, "offload_optimizer": {"buffer_count": "auto"}}, "seed": "auto"}
    with pytest.raises(
        UserError, match=r'"auto" for zero_optimization.offload_optimizer.buffer_count, seed has no rule'
    ):
        resolve(config, flags(), 1)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, r"cannot be read \(No such file.*name one of ds_configs"),
        ('{"bf16": ', r"is not JSON .*take one of ds_configs"),
        ("[1]", r"holds a list, not an object; see ds_configs"),
    ],
)
def test_a_file_that_holds_no_configuration_is_refused_by_its_path(tmp_path, content, words):
    path = tmp_path / "zero.json"
    if content is not None:
        path.write_text(content)
    with pytest.raises(UserError, match=rf"--deepspeed_config {path} {words}"):
        read_json(path)


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({"bf16": True}, "bf16"),
        ({"zero_optimization": True}, "zero_optimization"),
        ({"optimizer": None}, "optimizer"),
        ({"optimizer": {}}, "optimizer.type null in the DeepSpeed JSON is refused: it is none of AdamW, "),
        ({"scheduler": []}, "scheduler in the DeepSpeed JSON is .* not an object"),
        ({"data_types": 4}, "data_types in the DeepSpeed JSON is 4 and not an object"),
        ({"bf16": {"enabled": "true"}}, r'bf16.enabled "true" .* would be a guess; write true, false or "auto"'),
        ({"fp16": {"enabled": 1}}, "fp16.enabled 1 in the DeepSpeed JSON says neither yes nor no"),
        ({"bfloat16": {"enabled": True}}, "bfloat16 .* name the section bf16"),
        ({"fp16": {"enabled": "auto"}}, "^(?!.*None).*--mixed_precision, which is not given; give fp16 or no"),
        *(({"gradient_clipping": value}, "gradient_clipping.* is no norm") for value in ("much", -1, True, None)),
        ({"gradient_accumulation_steps": True}, "--gradient_accumulation_steps True leaves no sample"),
    ],
)
def test_sections_of_another_form_are_refused_in_words(config, words):
    with pytest.raises(UserError, match=words):
        resolve({**ZERO2, **config}, flags(), 1)


def test_offload_in_fp16_is_refused_and_in_bf16_not():
    offload = {"zero_optimization": {"stage": 2, "offload_optimizer": {"device": "cpu"}}}
    with pytest.raises(UserError, match=r"offload_optimizer with fp16 .* is refused: after the first overflow .*bf16"):
        resolve({**offload, "fp16": {"enabled": True}}, flags(), 1)
    assert resolve({**offload, "bf16": {"enabled": True}}, flags(), 1).precision == "bf16"


def test_with_offload_no_update_may_be_skipped_as_all_that_follow_would_be():
    config = {**BF16, "zero_optimization": {"stage": 2, "offload_optimizer": {"device": "cpu"}}}
    with pytest.raises(UserError, match=r"with --max_nonfinite_steps 2 .* is refused: .*; leave the flag out"):
        resolve(config, flags(max_nonfinite_steps=2), 1)
    assert resolve({**BF16, "zero_optimization": {"stage": 2}}, flags(max_nonfinite_steps=2), 1).stage == 2
