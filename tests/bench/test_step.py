"""`refiner-ds bench step`: ratios, goals, the same loss by every way that claims it, waiting, and a tiny run."""

import json
import types
from collections import Counter

import pytest
import torch
from diffusers.models.attention_processor import Attention

from refiner_ds.bench import step_supply
from refiner_ds.bench.baseline_parts import BothHalves
from refiner_ds.bench.encoded import write_encoded
from refiner_ds.bench.step_report import BARE, ENCODED, FROM_ENCODED, FROM_SHARDS, as_json, as_markdown
from refiner_ds.bench.step_supply import Source, Supply, of_largest_bucket, side_of
from refiner_ds.bench.turns import Contender, Row, Turn
from refiner_ds.bench.turns_report import BASELINE, OURS, ratio_of
from refiner_ds.cli import main
from refiner_ds.config.training import BUCKETS
from refiner_ds.data.buckets import parse_buckets
from refiner_ds.data.encoded_samples import training_samples
from refiner_ds.data.shards import open_shards
from refiner_ds.refiners.unclip.portable.mutual_attention import MutualAttention

ABOUT = {"command": "refiner-ds bench step", "machine": "2 CPU cores", "date": "2026-01-01", "what": "tiny model",
         "device": "cpu", "size": "tiny"}  # fmt: skip


def _turn(rate: float) -> Turn:
    """So many pairs/s, a quarter of the time waited for."""
    return Turn(100, 100 / rate, 512.0, 1.5, 1e12, waited=25 / rate)


def rows_of(*rates: float) -> list[Row]:
    """Of rounds in which the bare loop makes 1, 10, 100, ... pairs/s, and ours from features `rates` times that."""
    by_name = {OURS: 0.5, ENCODED: None, BARE: 1.0, BASELINE: 0.25}
    return [
        Row(
            Contender(name, torch.float32, lambda: None),
            3e9,
            [_turn(10**n * (factor or rate)) for n, rate in enumerate(rates)],
        )
        for name, factor in by_name.items()
    ]


def test_a_ratio_is_of_the_same_round():
    ratio = ratio_of(rows_of(0.9, 0.8, 1.0), ENCODED, BARE)
    assert (ratio.median, ratio.min, ratio.max) == pytest.approx((0.9, 0.8, 1.0))


@pytest.mark.parametrize(
    ("rate", "about", "kept", "words"),
    [
        (0.96, {}, [True, None], ["yes", "not promised here"]),
        (0.94, {}, [False, None], ["no", "not promised here"]),
        (0.79, {"size": "full-encoders"}, [None, False], ["not promised here", "no"]),
        (0.81, {"size": "full-encoders"}, [None, True], ["not promised here", "yes"]),
        (0.96, {"device": "cuda"}, [None, None], ["not promised here"] * 2),
        (0.96, {"size": "full"}, [None, None], ["not promised here"] * 2),
    ],
)
def test_goals_are_a_twentieth_of_the_bare_loop_and_1_6_times_the_pictures_where_they_are_promised(
    rate, about, kept, words
):
    rows = rows_of(rate, rate, rate)
    assert [goal["is_kept"] for goal in as_json(rows, ABOUT | about)["goals"]] == kept
    lines = as_markdown(rows, ABOUT | about).splitlines()[-2:]
    assert [line.split(" | ")[-1].removesuffix(" |") for line in lines] == words


def test_where_steps_took_turns_the_goal_goes_by_them():
    rows = rows_of(0.9, 0.9, 0.9)
    told = as_json(rows, ABOUT, [0.97, 0.99, 0.96])
    assert told["goals"][0]["measured"]["median"] == 0.97 and told["goals"][0]["is_kept"]
    assert f"{ENCODED} / {BARE}, a step of each in turn: 0.97 [0.96..0.99]." in as_markdown(
        rows, ABOUT, [0.97, 0.99, 0.96]
    )
    assert told["ratios"][3]["measured"]["median"] == pytest.approx(0.9)


def test_the_page_has_a_whole_line_for_each_way():
    head, _, *lines = as_markdown(rows_of(0.5), ABOUT).split("\n\n")[2].splitlines()
    assert {line.count("|") for line in (head, *lines)} == {9}
    assert lines[2] == (
        f"| {BARE} (fp32) | 1 [1..1] | 1000 [1000..1000] | 3 | 3 [3..3] | 0% [0%..0%] | 25% [25%..25%] | 512 |"
    )


def test_the_baselines_attention_computes_what_ours_does():
    torch.manual_seed(0)
    layer = Attention(query_dim=16, heads=2, dim_head=8).double()
    rows = torch.randn(4, 9, 16, dtype=torch.float64)
    layer.set_processor(MutualAttention())
    ours = layer(rows)
    layer.set_processor(BothHalves())
    assert torch.allclose(layer(rows), ours, rtol=1e-12, atol=1e-12)


@pytest.mark.slow
def test_a_tiny_run_measures_all_ways_of_one_and_the_same_step(refiner_ds_command, tmp_path):
    files = ("--json", tmp_path / "f.json", "--markdown", tmp_path / "f.md")
    given = ("--device", "cpu", "--resolution", "32x32", "--gradient_accumulation_steps", 2, "--rounds", 1)
    done = refiner_ds_command("bench", "step", *given, *files, timeout=400, CUDA_VISIBLE_DEVICES="")
    assert done.returncode == 0, done.stderr
    told, page = json.loads((tmp_path / "f.json").read_text()), (tmp_path / "f.md").read_text()
    assert done.stdout == page and "--gradient_accumulation_steps 2 --rounds 1`" in page
    about, rows = told["about"], {row["name"]: row for row in told["rows"]}
    assert [*rows] == [OURS, ENCODED, FROM_SHARDS, FROM_ENCODED, BARE, BASELINE]
    assert len(told["duel"]) == 1 and 0.3 < told["duel"][0] < 3
    assert (about["size"], about["resolution"], about["precision"]) == ("tiny", "32x32", "no")
    for row in rows.values():
        (turn,) = row["rounds"]
        assert turn["count"] % 2 == 0 and turn["count"] >= 4 and row["peak_mb"] > 100
        assert turn["pairs_per_second"] * turn["seconds"] == pytest.approx(turn["count"])
        speed = row["tflop_per_second"]["median"]
        assert speed == pytest.approx(row["tflop_per_pair"] * turn["pairs_per_second"])
        assert row["share_of_product"]["median"] == pytest.approx(speed * 1e12 / turn["product_flops"], abs=1e-4)
    for ratio in told["ratios"]:
        one, other = (rows[ratio[key]]["rounds"][0]["pairs_per_second"] for key in ("row", "other"))
        assert ratio["measured"]["median"] == pytest.approx(one / other, abs=1e-4)
    # what is compared computes the same: equal losses before any update, and equal work
    losses = {name: row["rounds"][0]["first_value"] for name, row in rows.items()}
    assert losses[ENCODED] == pytest.approx(losses[BARE], rel=1e-6)
    assert losses[ENCODED] == pytest.approx(losses[OURS], rel=1e-6)
    assert 0.1 < losses[BASELINE] < 10
    assert rows[ENCODED]["tflop_per_pair"] == rows[BARE]["tflop_per_pair"] < rows[OURS]["tflop_per_pair"]
    assert rows[FROM_SHARDS]["tflop_per_pair"] == rows[OURS]["tflop_per_pair"]
    assert rows[FROM_ENCODED]["tflop_per_pair"] == rows[ENCODED]["tflop_per_pair"]
    # who reads in the process that trains waits for it, and who has all in memory does not
    waits = {name: row["rounds"][0]["waited"] / row["rounds"][0]["seconds"] for name, row in rows.items()}
    assert waits[BARE] == 0 and max(waits[OURS], waits[ENCODED]) < 0.01 < waits[BASELINE]
    assert 0 < waits[FROM_SHARDS] < 1 and 0 < waits[FROM_ENCODED] < 1
    assert rows[BASELINE]["tflop_per_pair"] == pytest.approx(rows[OURS]["tflop_per_pair"], rel=0.01)


def test_what_was_made_ahead_of_the_clock_is_let_go():
    batches = iter(range(10))
    supply = Supply(batches, ahead=3)
    assert next(supply) == 0
    supply.settle()
    assert next(supply) == 4


def test_waiting_is_the_time_until_a_batch_is_there(monkeypatch):
    clock = types.SimpleNamespace(now=0.0)
    monkeypatch.setattr(step_supply.time, "perf_counter", lambda: clock.now)

    def slowly():
        while True:
            clock.now += 2.0
            yield None

    supply = Supply(slowly())
    for _ in range(3):
        next(supply)
        clock.now += 50.0
    assert supply.waited == 6.0


@pytest.mark.slow
def test_own_shards_are_measured_at_the_size_of_their_crops(refiner_ds_command, shards, tmp_path):
    given = ("--device", "cpu", "--rounds", 1, "--gradient_accumulation_steps", 1, "--shards", shards)
    done = refiner_ds_command(
        *("bench", "step", *given, "--buckets", "1.5:48x32", "--dataloader_num_workers", 1),
        *("--json", tmp_path / "f.json"),
        timeout=400,
        CUDA_VISIBLE_DEVICES="",
    )
    assert done.returncode == 0, done.stderr
    told = json.loads((tmp_path / "f.json").read_text())
    assert [row["name"] for row in told["rows"]] == [OURS, ENCODED, FROM_SHARDS, BARE, BASELINE]
    assert (
        told["about"]["resolution"] == "32x32" and str(shards) not in done.stdout and "--shards SHARDS" in done.stdout
    )


def test_shards_that_cannot_be_measured_are_refused_in_one_sentence(capsys, shards, tmp_path):
    def refused(*arguments):
        assert main(["bench", "step", *map(str, arguments)]) == 2
        told = capsys.readouterr().err.strip()
        assert len(told.splitlines()) == 1 and told.endswith(".")
        return told

    own = ("--shards", shards, "--buckets", "1.5:48x32")
    assert "becomes crops of 32x32 by" in refused(*own, "--resolution", "64x64")
    assert "hold 20 training samples of one bucket and a step takes 100" in refused(*own, "--train_batch_size", 25)
    assert "--dataloader_num_workers -1" in refused("--dataloader_num_workers", -1)
    assert "--buckets 1.5:48x32 would have no effect" in refused("--buckets", "1.5:48x32")
    (bucket,) = parse_buckets("1.5:48x32")
    write_encoded(shards, tmp_path / "encoded", "latent", bucket)
    told = refused("--shards", tmp_path / "encoded", "--size", "tiny", "--device", "cpu")
    assert "of 4 channels at 1/8 and embeddings of 1024 numbers, and the model of --size takes 4 at 1/4 and 32" in told


def test_the_bucket_that_most_samples_are_of_is_measured(shards):
    samples = training_samples(open_shards(str(shards)), parse_buckets(BUCKETS), 0)
    chosen = of_largest_bucket(samples)
    counts = Counter(samples.bucket_of_sample.tolist())
    ((bucket, count),) = counts.most_common(1)
    assert len(chosen) == count and set(chosen.bucket_of_sample.tolist()) == {bucket}
    assert side_of(chosen) == parse_buckets(BUCKETS)[bucket].height
    supply = Source(chosen, 1, 2, 0, False).open()
    assert {next(supply).render.shape[-1] for _ in range(4)} == {side_of(chosen)}, "though the table has other buckets"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--rounds", "0"], "--rounds 0 measures nothing; give at least 1."),
        (["--resolution", "64"], "--resolution 64 is no HEIGHTxWIDTH, so no crop can be cut; write e.g. 512x512."),
        (["--resolution", "64x60"], "--resolution 64x60 gives the network no whole number of latents"),
        (["--resolution", "16x64"], "take sides of at least 32 pixels that are multiples of 8."),
        (["--train_batch_size", "0"], "--train_batch_size 0 leaves no sample to train on"),
        (["--gradient_accumulation_steps", "0"], "--gradient_accumulation_steps 0 leaves no sample to train on"),
        (["--precision", "fp8"], "--precision"),
        (["--size", "huge"], "--size"),
    ],
)
def test_what_cannot_be_measured_is_refused_in_one_sentence(capsys, arguments, words):
    assert main(["bench", "step", *arguments]) == 2
    told = capsys.readouterr().err.strip()
    assert words in told and len(told.splitlines()) == 1 and told.endswith(".")


@pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU is there")
def test_a_gpu_that_is_not_there_is_refused(capsys):
    assert main(["bench", "step", "--device", "cuda"]) == 2
    assert "--device cuda, but torch finds no GPU here; take --device cpu or auto." in capsys.readouterr().err


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_the_cpu_is_refused_where_a_gpu_would_be_taken(capsys):
    assert main(["bench", "step", "--device", "cpu"]) == 2
    assert "set CUDA_VISIBLE_DEVICES to nothing for this command." in capsys.readouterr().err
