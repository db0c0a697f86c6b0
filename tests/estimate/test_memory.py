"""The arithmetic of memory: properties over ranks, stages and precisions, and the figures that ZeRO's paper has."""

import itertools
from dataclasses import replace

import pytest

from refiner_ds.estimate.activations import MicroBatch
from refiner_ds.estimate.disk import checkpoint_bytes
from refiner_ds.estimate.findings import REFUSED, columns_of
from refiner_ds.estimate.memory import SNAPSHOT, Setup, bill, shard_of
from refiner_ds.estimate.parameters import Counts
from refiner_ds.estimate.traffic import traffic

FULL = Counts(870_184_644, 0, 29_491_200, {"VAE": 83_653_863, "CLIP": 632_076_800})
BATCH = MicroBatch(512, kept=8 * 10**9, workspace=10**8, encoding=4 * 10**9, flops=0)
GIB = 2**30
COUNTS = [1, 7, 1_000, 870_184_644]
RANKS = [1, 2, 3, 8, 64, 1000]
MODEL_STATES = ("weights", "fp32 masters", "optimizer moments", "moving average")


def setup(stage: int = 2, ranks: int = 8, precision: str = "bf16", **changes) -> Setup:
    of = 4 if precision == "no" else 2
    plain = Setup(
        stage=stage, ranks=ranks, weight_bytes=of, is_bf16=precision == "bf16", has_fp32_accumulation=of == 2,
        offloads=False, bucket=100_000_000, buckets=1, accumulation=5, moment_bytes=8, update_bytes=0,
        has_average=False,
    )  # fmt: skip
    return replace(plain, **changes)


def states(of: Setup, counts: Counts = FULL) -> int:
    """Bytes of weights, gradients and optimizer on the device, without buckets and activations."""
    told = bill(counts, of, BATCH)
    held = {**told.backward, **told.always}
    return sum(held.get(name, 0) for name in (*MODEL_STATES, "gradients", "second gradients"))


@pytest.mark.parametrize(("weights", "ranks"), list(itertools.product(COUNTS, RANKS)))
def test_shards_hold_all_weights_and_halve_with_twice_the_ranks(weights, ranks):
    one, other = (shard_of(weights, setup(ranks=number)) for number in (ranks, 2 * ranks))
    assert weights <= one * ranks < weights + 2 * ranks
    assert abs(one - 2 * other) <= 4 and shard_of(weights, setup(stage=0, ranks=ranks)) == weights


@pytest.mark.parametrize(
    ("ranks", "precision", "accumulation", "has_average"),
    list(itertools.product(RANKS, ("bf16", "fp16", "no"), (1, 2, 20), (False, True))),
)
def test_a_higher_stage_never_needs_more_for_weights_gradients_and_optimizer(
    ranks, precision, accumulation, has_average
):
    of = [setup(stage, ranks, precision, accumulation=accumulation, has_average=has_average) for stage in (0, 1, 2, 3)]
    optimizers = [sum(bill(FULL, one, BATCH).always.get(name, 0) for name in MODEL_STATES) for one in of]
    padding = 16 * 2 * ranks
    if precision == "no":  # the others update the network's own weights
        optimizers[3] -= bill(FULL, of[3], BATCH).always["fp32 masters"]
    assert all(high <= low + padding for low, high in itertools.pairwise(optimizers))
    assert states(of[2]) <= states(of[1]) + padding
    if ranks > 1:  # one rank shards nothing, and adds up whole at stages 1 and 2 only
        assert states(of[3]) <= states(of[2])
    offloaded = bill(FULL, replace(of[2], offloads=True), BATCH)
    assert offloaded.total < bill(FULL, of[2], BATCH).total + 2 * FULL.largest * of[2].weight_bytes
    assert offloaded.host["optimizer moments"] == bill(FULL, of[2], BATCH).always["optimizer moments"]


@pytest.mark.parametrize("stage", [1, 2, 3])
def test_what_is_sharded_halves_with_twice_the_ranks_and_what_is_not_stays(stage):
    one, other = (bill(FULL, setup(stage, ranks, has_average=True), BATCH) for ranks in (8, 16))
    for name in ("fp32 masters", "optimizer moments", "moving average"):
        assert one.always[name] == pytest.approx(2 * other.always[name], abs=64)
    assert one.always["frozen encoders"] == other.always["frozen encoders"] == 2 * sum(FULL.frozen.values())
    assert (one.always["weights"] == other.always["weights"]) == (stage < 3)
    assert one.backward["activations"] == other.backward["activations"] == BATCH.kept


@pytest.mark.parametrize(("stage", "ranks", "gib"), [(2, 1, 14.6), (2, 8, 3.2), (1, 8, 6.1), (2, 64, 1.8)])
def test_model_states_are_those_that_were_worked_out_by_hand(stage, ranks, gib):
    """Of 0.87 B weights: 2 + (4 + 8 + 4) / N bytes each at stage 2, and 2 + 4 + 12 / N at stage 1 in bf16."""
    assert states(setup(stage, ranks)) / GIB == pytest.approx(gib, abs=0.1)


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_without_offload_and_accumulation_the_paper_s_sixteen_bytes_are_counted_at_stage_0(precision):
    """arXiv:1910.02054, section 3.1: 2 + 2 + 12 bytes for each weight in mixed precision with Adam."""
    assert states(setup(0, 1, precision)) == 16 * FULL.trained


def test_the_total_is_the_worst_moment():
    told = bill(FULL, setup(), BATCH)
    assert told.total == told.moments["backward"] == max(told.moments.values())
    small = bill(FULL, setup(), MicroBatch(64, 10**6, 10**5, 30 * 10**9, 0))
    assert small.total == small.moments["encoding"]
    last = bill(FULL, setup(1, 64, update_bytes=800), MicroBatch(64, 10**6, 10**5, 10**6, 0))
    assert last.total == last.moments["update"]


@pytest.mark.parametrize(
    ("stage", "ranks", "precision", "has_average"),
    list(itertools.product((1, 2), RANKS, ("bf16", "fp16", "no"), (False, True))),
)
def test_all_ranks_together_copy_a_checkpoint_to_their_hosts(stage, ranks, precision, has_average):
    of = setup(stage, ranks, precision, has_average=has_average)
    each, written = bill(FULL, of, BATCH).host[SNAPSHOT], checkpoint_bytes(FULL.trained, has_average)
    assert written == (16 if has_average else 12) * FULL.trained
    assert written <= ranks * each < written + 16 * 2 * ranks
    offloaded = bill(FULL, replace(of, offloads=True), BATCH).host
    assert offloaded[SNAPSHOT] == each and offloaded["fp32 masters"] > 0, (
        "beside the optimizer, which goes on meanwhile"
    )


def test_lora_is_counted_by_what_it_trains():
    few = Counts(trained=3_343_168, held=870_161_284, largest=23_040, frozen={})
    told = bill(few, setup(ranks=1), BATCH)
    assert told.always["weights"] == 2 * (few.trained + few.held)
    assert told.always["optimizer moments"] == 8 * few.trained


def test_a_column_is_yours_and_what_training_refuses_is_marked():
    columns = columns_of(FULL, setup(1), BATCH)
    assert [column.name for column in columns if column.is_yours] == ["ZeRO-1"]
    assert {column.setup.stage for column in columns if column.refused} == set(REFUSED) == {0, 3}
    columns = columns_of(FULL, setup(2, precision="fp16"), BATCH)
    assert [column.name for column in columns if column.refused] == ["ZeRO-0", "ZeRO-3", "ZeRO-2 offload"]
    own = columns_of(FULL, setup(1, offloads=True), BATCH)[-1]
    assert own.is_yours and own.name == "ZeRO-1 offload"


@pytest.mark.parametrize("ranks", RANKS)
def test_twenty_steps_cost_zero_2_forty_bytes_a_weight_and_zero_1_two(ranks):
    one, two = (traffic(1000, ranks, stage, 20, 2) for stage in (1, 2))
    if ranks == 1:
        assert one.sent == two.sent == 0
        return
    assert (one.reduced, two.reduced, one.gathered, two.gathered) == (2_000, 40_000, 2_000, 2_000)
    assert two.sent == pytest.approx((2 * 40_000 + 2_000) * (ranks - 1) / ranks, abs=1)
    assert one.sent == pytest.approx((2_000 + 2_000) * (ranks - 1) / ranks, abs=1)
    assert traffic(1000, ranks, 1, 1, 2) == one
