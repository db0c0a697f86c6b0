"""The ranks' figures together, and how a person sees them."""

import json
import random
import socket
import time
from dataclasses import replace

import pytest
import torch

from refiner_ds.train.console import Console
from refiner_ds.train.figures import NOTABLE, RankFigures, together
from refiner_ds.train.system import Sampler

ONE = RankFigures("node0", flops=2e12, peak=8e12, wait=0.1, memory=3 * 10**9, own_seconds=0.2)


def test_one_rank_alone_is_the_mean_of_all():
    metrics, slowest = together([ONE])
    expected = {"tflops": 2.0, "mfu": 0.25, "data_wait": 0.1, "memory_gb": 3.0, "rank_spread": 1.0}
    assert metrics == pytest.approx({f"train/{name}": value for name, value in expected.items()}) and slowest == ""


def test_a_machine_gets_each_line_as_json(capsys):
    console = Console(True, 0, 4, as_json=True)
    console.header("refiner_ds 1", {"batch": "global batch 8"})
    console.say("continuing")
    console.step(3, {"train/loss": float("inf"), "train/lr": 1e-4, "train/pairs_per_s": 3.0}, "")
    Console(False, 0, 4, as_json=True).say("another rank")
    told = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [line["event"] for line in told] == ["header", "message", "step"]
    assert told[0]["batch"] == "global batch 8" and told[1]["text"] == "continuing"
    assert (told[2]["step"], told[2]["train/loss"]) == (3, "inf") and abs(told[2]["time"] - time.time()) < 60


@pytest.mark.parametrize("num_ranks", [2, 3, 8, 64])
def test_figures_lie_between_those_of_the_ranks_and_the_slowest_is_the_slowest(num_ranks):
    chance = random.Random(num_ranks)
    for _ in range(50):
        spread = chance.choice([0.05, 1.0])
        ranks = [
            RankFigures(
                f"node{rank // 8}", 1e12 * chance.random(), 1e12, chance.random(), chance.randrange(10**11),
                1 + spread * chance.random(),
            )
            for rank in range(num_ranks)
        ]  # fmt: skip
        metrics, slowest = together(ranks)
        assert min(r.flops for r in ranks) <= metrics["train/tflops"] * 1e12 <= max(r.flops for r in ranks)
        assert metrics["train/mfu"] == pytest.approx(metrics["train/tflops"])
        assert 0 <= metrics["train/data_wait"] <= 1
        assert metrics["train/memory_gb"] == max(r.memory for r in ranks) / 1e9
        assert 1 <= metrics["train/rank_spread"] <= 2
        last = max(range(num_ranks), key=lambda rank: ranks[rank].own_seconds)
        stands_out = metrics["train/rank_spread"] > NOTABLE
        assert slowest.startswith(f"rank {last} on node{last // 8} takes 1.") if stands_out else slowest == ""


def test_each_node_tells_its_own_samples():
    other = replace(ONE, host="node1", node={"cpu": 0.25})
    metrics, _ = together([replace(ONE, node={"cpu": 0.5, "memory_gb": 7.0}), ONE, other])
    told = {name: value for name, value in metrics.items() if name.startswith("system/")}
    assert told == {"system/node0/cpu": 0.5, "system/node0/memory_gb": 7.0, "system/node1/cpu": 0.25}


def test_a_node_is_sampled_since_the_sample_before(tmp_path):
    sampler = Sampler(torch.device("cpu"), 0, tmp_path)
    began = time.process_time()
    while time.process_time() - began < 0.3:
        pass
    found = sampler.take()
    assert 0 < found["cpu"] <= 1 and found["memory_gb"] > 0.1 and found["disk_free_gb"] > 0
    with (
        socket.create_server(("127.0.0.1", 0)) as server,
        socket.create_connection(server.getsockname()) as sender,
        server.accept()[0] as receiver,
    ):
        for _ in range(50):
            sender.sendall(bytes(100_000))
            receiver.recv(100_000, socket.MSG_WAITALL)
    assert sampler.take()["sent_mb_s"] > 0
    assert Sampler(torch.device("cpu"), 1, tmp_path).take() == {}, "the first rank of a node tells of it"


def test_there_is_no_spread_where_a_rank_timed_nothing():
    metrics, slowest = together([ONE, replace(ONE, own_seconds=None), replace(ONE, own_seconds=9.0)])
    assert "train/rank_spread" not in metrics and slowest == ""


def test_the_console_shows_a_reading_and_who_is_slow(capsys):
    console = Console(True, 0, 4)
    figures, slowest = together([ONE, replace(ONE, own_seconds=0.1)])
    step = {"train/loss": 0.5, "train/lr": 1e-4, "train/pairs_per_s": 3.0}
    console.step(3, step, slowest)
    console.step(4, {**step, **figures}, slowest)
    (line,) = capsys.readouterr().out.splitlines()
    assert "step 4/4  loss 0.5000" in line
    assert "2 TFLOP/s (25% of peak)  data wait 10%  3.0 GB  rank 0 on node0 takes 1.33 x the mean" in line
