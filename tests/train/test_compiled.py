"""A network that is compiled for training: whole, once a shape, the same losses, and as it is written for all else."""

import os
import re
import subprocess
import sys

import pytest
import torch
from torch._dynamo.utils import counters

from refiner_ds.batch import Batch
from refiner_ds.flops import Arithmetic
from refiner_ds.refiners.unclip.options import Adaptation, Recipe
from refiner_ds.refiners.unclip.refiner import UnclipRefiner
from refiner_ds.train.compiled import compile_network, eagerly
from refiner_ds.train.work import Work

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def afresh():
    torch._dynamo.reset()
    counters.clear()
    yield
    torch._dynamo.reset()


def graphs() -> int:
    """How often something was compiled."""
    return counters["stats"]["unique_graphs"]


def noise(side: int) -> Batch:
    drawn = torch.Generator().manual_seed(side)
    render, gt, cond = torch.randint(256, (3, 2, 3, side, side), generator=drawn, dtype=torch.uint8)
    return Batch(render, gt, cond, (0, 1), ("a", "b"))


@pytest.mark.slow
@pytest.mark.long
@pytest.mark.parametrize(
    ("adaptation", "checkpointed"),
    [(None, "nothing"), (Adaptation(trainable="attention", lora_rank=4), "all")],
    ids=["full", "lora, checkpointed"],
)
def test_the_refiners_network_is_one_graph_for_each_shape_of_a_micro_batch(tiny_base, adaptation, checkpointed):
    """Traced by the compiler without generating code, which takes minutes here; a part that breaks the graph raises."""
    refiner = UnclipRefiner(str(tiny_base), adaptation=adaptation)
    refiner.place(CPU, torch.float32)
    refiner.prepare_training(Recipe(), checkpointed)
    refiner.network.train()
    compiled = torch.compile(refiner.network, backend="eager", dynamic=False, fullgraph=True)
    for number, side in enumerate((64, 64, 96), 1):
        features = refiner.encode(noise(side))
        losses = [
            float(refiner.loss(network, torch.float32, features, number)["loss"])
            for network in (refiner.network, compiled)
        ]
        assert losses[0] == losses[1]
    assert graphs() == 2


class Layers(torch.nn.Module):
    """Two layers, always the same ones."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.second = torch.nn.Linear(4, 8), torch.nn.Linear(8, 2)

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        return self.second(torch.nn.functional.silu(self.first(rows)))


def gradients_of(network: torch.nn.Module, rows: int) -> list[torch.Tensor]:
    network.zero_grad()
    network(torch.ones(rows, 4)).square().sum().backward()
    return [parameter.grad.clone() for parameter in network.parameters()]


@pytest.mark.slow
def test_compiled_code_trains_as_what_is_written_and_its_names_stay():
    plain, network = Layers(), Layers()
    compile_network(network)
    counters.clear()  # of what it has tried out
    for rows in (3, 3, 5, 3):
        for one, other in zip(gradients_of(plain, rows), gradients_of(network, rows), strict=True):
            assert torch.allclose(one, other, rtol=1e-5, atol=1e-6)
    assert graphs() == 2
    assert [*network.state_dict()] == [*plain.state_dict()]


@pytest.mark.slow
def test_what_is_counted_or_validated_is_not_compiled():
    network = Layers()
    compile_network(network)
    counters.clear()
    work, shape = Work(CPU, eagerly), (3, 4)
    for compiled in (0, 1, 1, 1):
        with work.forth(shape):
            loss = network(torch.ones(shape)).square().sum()
        with work.back():
            loss.backward()
        assert graphs() == compiled
    with Arithmetic() as arithmetic:
        Layers()(torch.ones(shape))
    flops, seconds = work.take()
    assert flops >= 4 * arithmetic.flops > 0
    assert 0 < seconds < 1, "what compiled is not timed"
    with eagerly(), torch.no_grad():
        network(torch.ones(7, 4))
    assert graphs() == 1


TRIES = "import torch; from refiner_ds.train.compiled import compile_network; compile_network(torch.nn.Linear(1, 1))"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("says", "fault"),
    [(None, "InvalidCxxCompiler"), ("main.cpp:1:10: fatal error: Python.h: No such file", "fatal error: Python.h")],
    ids=["no compiler", "no headers"],
)
def test_a_host_that_cannot_compile_is_told_before_anything_is_trained(tmp_path, says, fault):
    compiler = tmp_path / "g++"
    if says:
        compiler.write_text(f"#!/bin/sh\n[ $# -gt 1 ] || exec echo 'g++ (Debian) 12.2.0'\necho '{says}' >&2\nexit 1\n")
        compiler.chmod(0o755)
    given = {**os.environ, "CXX": str(compiler), "TORCHINDUCTOR_CACHE_DIR": str(tmp_path / "cache")}
    done = subprocess.run([sys.executable, "-c", TRIES], env=given, capture_output=True, text=True, timeout=200)
    told = done.stderr.strip().splitlines()[-1]
    assert re.search(rf"UserError: --compile: .* can compile nothing \(.*{fault}.*\); install a C\+\+ compiler", told)
