"""The limits of training's flags: what lies beyond one is refused by the flag's name, the defaults never."""

from pathlib import Path

import pytest

from refiner_ds.config.limits import LIMITS, check_limits
from refiner_ds.config.training import Train
from refiner_ds.errors import UserError


def flags(**given: object) -> Train:
    return Train("shards", "base", Path("run"), **given)  # type: ignore[arg-type]


def test_what_a_flag_is_by_default_lies_within_its_limit():
    check_limits(flags())
    assert set(vars(flags())) >= LIMITS.keys()


@pytest.mark.parametrize(
    "given",
    [
        {"lr_warmup_steps": 0, "checkpointing_steps": 0, "validation_epochs": 0, "dataloader_num_workers": 0},
        {"condition_dropout_prob": 1 / 7, "source_loss_weight": 0.0, "adam_weight_decay": 0.0, "adam_beta1": 0.0},
        {"condition_dropout_prob": 0.0, "num_train_epochs": 1, "max_train_steps": 1, "checkpoints_total_limit": 1},
        {"logging_steps": 1, "timeout_minutes": 0.1, "learning_rate": 1e-12, "validation_steps": 1},
    ],
)
def test_the_limit_itself_is_allowed(given):
    check_limits(flags(**given))


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("learning_rate", 0.0, "lets nothing be learned; give more than 0."),
        ("learning_rate", -1e-4, "lets nothing be learned; give more than 0."),
        ("learning_rate", float("nan"), "lets nothing be learned; give more than 0."),
        ("learning_rate", float("inf"), "lets nothing be learned; give more than 0."),
        ("lr_warmup_steps", -1, "is no number of steps to warm up over; give 0 or more."),
        ("num_train_epochs", 0, "leaves nothing to train; give 1 or more."),
        ("max_train_steps", 0, "leaves nothing to train; give 1 or more."),
        ("adam_beta1", 1.0, "is no share of a moment to keep; give 0 or more, below 1."),
        ("adam_beta2", -0.1, "is no share of a moment to keep; give 0 or more, below 1."),
        ("adam_weight_decay", -1e-2, "makes weights grow instead of decay; give 0 or more."),
        ("adam_epsilon", 0.0, "lets AdamW divide by zero; give more than 0."),
        ("condition_dropout_prob", 0.15, "is no probability that seven cases can have at once; give 0 to 1/7."),
        ("condition_dropout_prob", -0.1, "is no probability that seven cases can have at once; give 0 to 1/7."),
        ("source_loss_weight", -1.0, "rewards what the loss should punish; give 0 or more."),
        ("checkpointing_steps", -1, "is no interval between checkpoints; give 0 or more."),
        ("checkpoints_total_limit", 0, "leaves no checkpoint to continue from; give 1 or more."),
        ("validation_epochs", -1, "is no interval between validations; give 0 or more."),
        ("validation_steps", 0, "lets validation repair nothing; give 1 or more."),
        ("logging_steps", 0, "is no interval between readings; give 1 or more."),
        ("max_nonfinite_steps", -1, "is no number of updates; give 0 or more."),
        ("dataloader_num_workers", -1, "is no number of processes; give 0 or more."),
        ("timeout_minutes", 0.0, "ends the job at its first collective; give more than 0."),
    ],
)
def test_what_lies_beyond_a_limit_is_refused_by_the_flags_name(name, value, words):
    with pytest.raises(UserError) as caught:
        check_limits(flags(**{name: value}))
    assert str(caught.value) == f"--{name} {value} {words}"


def test_a_decay_without_an_average_is_refused():
    check_limits(flags(ema_decay=0.99, use_ema=True))
    with pytest.raises(UserError, match=r"--ema_decay 0.99 would have no effect, .*; add --use_ema or leave it out"):
        check_limits(flags(ema_decay=0.99))


def test_blocks_are_named_only_where_something_is_computed_twice():
    assert flags().checkpointed == "nothing"
    assert flags(gradient_checkpointing=True).checkpointed == "all"
    assert flags(gradient_checkpointing=True, checkpointed_blocks="attention").checkpointed == "attention"
    check_limits(flags(gradient_checkpointing=True, checkpointed_blocks="attention"))
    with pytest.raises(UserError, match=r"attention would have no effect, .*; add --gradient_checkpointing, or leave"):
        check_limits(flags(checkpointed_blocks="attention"))
