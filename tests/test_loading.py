"""Loading: what was imported is never looked through for garbage, and what becomes garbage later still is."""

import gc
import sys

import pytest

from refiner_ds.loading import load


@pytest.fixture
def heavy(tmp_path, monkeypatch):
    """A module of many objects, in which the collector's state can be seen."""
    text = "import gc\nwas_enabled = gc.isenabled()\nobjects = [[number] for number in range(100_000)]\n"
    (tmp_path / "heavy_made.py").write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    yield "heavy_made"
    sys.modules.pop("heavy_made", None)


def test_what_is_loaded_is_at_rest_and_the_collector_goes_on(heavy):
    before = gc.get_freeze_count()
    module = load(heavy)
    assert not module.was_enabled and gc.isenabled()
    assert gc.get_freeze_count() - before > 100_000
    frozen = gc.get_freeze_count()
    cycle: list[object] = []
    cycle.append(cycle)
    assert load(heavy) is module and gc.get_freeze_count() <= frozen, "only once"
    del cycle
    assert gc.collect() >= 1


def test_a_module_that_cannot_be_imported_leaves_the_collector_as_it_was():
    with pytest.raises(ModuleNotFoundError):
        load("refiner_ds.no_such_module")
    assert gc.isenabled()
