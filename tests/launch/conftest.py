"""Clusters that tests of launch/ share."""

from collections.abc import Iterator

import pytest

from tests.launch.slurm_cluster import Cluster, missing


@pytest.fixture(scope="module")
def cluster(tmp_path_factory) -> Iterator[Cluster]:
    """A cluster of one node for the tests of a module."""
    if why := missing():
        pytest.skip(why)
    cluster = Cluster(tmp_path_factory.mktemp("slurm"))
    try:
        cluster.start()
        yield cluster
    finally:
        cluster.stop()
