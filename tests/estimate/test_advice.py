"""Which configuration is advised: a file that exists, says what is assumed of it, fits, and exchanges least."""

import itertools
import json
from pathlib import Path

import pytest

from refiner_ds.config.deepspeed import BUCKET_ELEMENTS, resolve
from refiner_ds.config.training import Train
from refiner_ds.estimate.advice import CHOICES, USABLE, Saving, advise
from refiner_ds.estimate.setup import setup_of
from refiner_ds.verbs.plan import STANDARD

CONFIGS = Path(__file__).parents[2] / "ds_configs"
BF16 = ("zero2_bf16.json", "zero1_bf16.json", "zero2_offload.json")
NEEDS = dict(zip(BF16, (14, 19, 12), strict=True))
SMALLER = dict(zip(BF16, (9, 14, 7), strict=True))
SMALL = dict(zip(BF16, (7, 12, 5), strict=True))
SAVINGS = (Saving("attention", 1.14, SMALLER), Saving("all", 1.25, SMALL))


def advised(memory: float, ranks: int = 8, accumulation: int = 20) -> tuple[str | None, str]:
    of = advise(NEEDS, int(memory / USABLE * 1000) + 1, "bf16", ranks, accumulation, SAVINGS)
    return of.file, of.reason


@pytest.fixture(autouse=True)
def thousandths(monkeypatch):
    """Needs in thousands, so that a device's share is exact enough."""
    for needs in (NEEDS, SMALLER, SMALL):
        for file in needs:
            monkeypatch.setitem(needs, file, needs[file] * 1000)


@pytest.mark.parametrize("choice", CHOICES, ids=lambda choice: choice.file)
def test_a_choice_is_what_its_file_says(choice):
    flags = Train("", "", Path())
    resolved = resolve(json.loads((CONFIGS / choice.file).read_text()), flags, 8)
    assert resolved.precision == choice.precision
    said = setup_of(resolved, 8, has_average=False)
    other = setup_of(resolve(json.loads((CONFIGS / "zero2_fp16.json").read_text()), flags, 8), 8, has_average=False)
    if choice.precision == "fp16":
        assert choice.applied_to(other, BUCKET_ELEMENTS) == said
    applied = choice.applied_to(said, BUCKET_ELEMENTS)
    assert applied.accumulates_apart == said.accumulates_apart
    assert (applied.stage, applied.offloads, applied.bucket, applied.buckets) == (
        said.stage, said.offloads, said.bucket, said.buckets,
    )  # fmt: skip


def test_every_configuration_is_chosen_among_or_one_of_those_by_a_flag():
    files = {path.name for path in CONFIGS.glob("*.json")}
    assert files - {choice.file for choice in CHOICES} == {"zero2.json"}
    standard = json.loads((CONFIGS / "zero2.json").read_text())
    flags = Train("", "", Path())
    assert setup_of(resolve(STANDARD, flags, 8), 8, False) == setup_of(resolve(standard, flags, 8), 8, False)


@pytest.mark.parametrize(
    ("memory", "file", "words"),
    [
        (80, "zero1_bf16.json", "20 accumulation steps"),
        (19, "zero1_bf16.json", "20 accumulation steps"),
        (18.9, "zero2_bf16.json", "ZeRO-1, which exchanges less"),
        (13.9, "zero2_offload.json", "optimizer on the CPU"),
        (11.9, "zero2_bf16.json", "--gradient_checkpointing --checkpointed_blocks attention, which computes 14% more"),
        (8.9, "zero2_offload.json", "--gradient_checkpointing --checkpointed_blocks attention"),
        (6.9, "zero2_offload.json", "--gradient_checkpointing --checkpointed_blocks all, which computes 25% more"),
        (5, "zero2_offload.json", "--checkpointed_blocks all"),
        (4.9, None, "smaller --train_batch_size"),
    ],
)
def test_the_fastest_that_fits_is_taken(memory, file, words):
    told, reason = advised(memory)
    assert told == file and words in reason
    assert told is None or (CONFIGS / told).exists()


def test_zero_1_is_taken_from_two_accumulation_steps_on():
    assert advised(80, 8, 2)[0] == "zero1_bf16.json"


@pytest.mark.parametrize(("ranks", "accumulation"), [(1, 20), (8, 1)])
def test_zero_2_is_taken_where_zero_1_saves_no_exchange(ranks, accumulation):
    assert advised(80, ranks, accumulation)[0] == "zero2_bf16.json"


def test_more_memory_never_leads_to_offload_or_checkpointing():
    order = ["nothing", "checkpointing", "offload", "fits"]

    def rank_of(memory: float) -> int:
        file, reason = advised(memory)
        if file is None:
            return 0
        return 1 if "checkpointing" in reason else 2 if "offload" in file else 3

    ranks = [rank_of(memory) for memory in range(1, 40)]
    assert ranks == sorted(ranks) and {order[rank] for rank in ranks} == set(order)
    assert all(low <= high for low, high in itertools.pairwise(ranks))
