"""Clusters that tests of launch/ share, and the run that is started on them."""

import os
from collections.abc import Iterator

import pytest

from tests.launch import hosts as namespaces
from tests.launch import slurm_cluster
from tests.train.launch import ZERO2, losses, start, torchrun

STEPS = 12


@pytest.fixture(scope="module")
def cluster(tmp_path_factory) -> Iterator[slurm_cluster.Cluster]:
    """A Slurm cluster of one node for the tests of a module."""
    skip_for(slurm_cluster.missing())
    cluster = slurm_cluster.Cluster(tmp_path_factory.mktemp("slurm"))
    try:
        cluster.start()
        yield cluster
    finally:
        cluster.stop()


@pytest.fixture(scope="module")
def hosts(tmp_path_factory) -> Iterator[namespaces.Hosts]:
    """Two hosts for the tests of a module."""
    skip_for(namespaces.missing())
    with namespaces.two_hosts(tmp_path_factory.mktemp("hosts")) as hosts:
        yield hosts


def skip_for(why: str) -> None:
    if "install" in why and os.environ.get("CI") and os.geteuid() == 0:
        pytest.fail(f"{why}; in continuous integration launch/test.sh installs it, so this is no reason to skip")
    if why:
        pytest.skip(why)


@pytest.fixture(scope="session")
def flags(shards, tiny_base, tmp_path_factory):
    """A run of two ranks for some seconds, with a checkpoint every other step."""
    return {
        "--shards": shards,
        "--pretrained_model_name_or_path": tiny_base,
        "--deepspeed_config": ZERO2,
        "--buckets": "1.0:64x64,1.5:96x64",
        "--gradient_accumulation_steps": 1,
        "--train_batch_size": 2,
        "--max_train_steps": STEPS,
        "--checkpointing_steps": 2,
        "--logging_steps": 1,
        "--validation_epochs": 0,
        "--dataloader_num_workers": 1,
        "--timeout_minutes": 1,
        "--tracking_uri": f"sqlite:///{tmp_path_factory.mktemp('mlflow')}/mlflow.db",
    }


@pytest.fixture(scope="session")
def expected(flags, tmp_path_factory) -> dict[int, float]:
    """The losses of that run by step, with both ranks on one host."""
    folder = tmp_path_factory.mktemp("one-host") / "run"
    done = start(torchrun(), {**flags, "--output_dir": folder})
    assert done.returncode == 0, done.stdout[-3000:]
    return losses(folder)
