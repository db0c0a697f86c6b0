"""Loading: what was imported is never looked through for garbage, and what nobody asks for is not imported."""

import gc
import subprocess
import sys
import weakref
from types import ModuleType

import pytest

from refiner_ds.loading import UNASKED, load


@pytest.fixture
def heavy(tmp_path, monkeypatch):
    """A module of many objects, in which the collector's state can be seen."""
    text = "import gc\nwas_enabled = gc.isenabled()\nobjects = [[number] for number in range(100_000)]\n"
    (tmp_path / "heavy_made.py").write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    yield "heavy_made"
    sys.modules.pop("heavy_made", None)


class Itself:
    """Knows itself, so that only the collector frees it."""

    def __init__(self) -> None:
        self.own = self


def test_what_is_loaded_is_at_rest_and_the_collector_goes_on(heavy):
    before = gc.get_freeze_count()
    module = load(heavy)
    assert not module.was_enabled and gc.isenabled()
    assert gc.get_freeze_count() - before > 100_000
    frozen = gc.get_freeze_count()
    cycle = Itself()
    seen = weakref.ref(cycle)
    assert load(heavy) is module and gc.get_freeze_count() <= frozen, "only once"
    del cycle
    gc.collect()
    assert seen() is None, "what was made since is collected"


def test_a_module_that_cannot_be_imported_leaves_the_collector_as_it_was():
    with pytest.raises(ModuleNotFoundError):
        load("refiner_ds.no_such_module")
    assert gc.isenabled()


def test_what_libraries_would_load_for_others_is_left_out_and_there_when_it_is_asked_for():
    """In a process of its own, as training starts; else what other tests have loaded would be there."""
    program = f"""
import sys
from refiner_ds.loading import UNASKED, load
load("refiner_ds.train.run")
assert not set({UNASKED}) & set(sys.modules), "it takes a third of the time again"
import bitsandbytes.optim, matplotlib
assert bitsandbytes.optim.AdamW8bit and matplotlib.__version__
from diffusers import DDPMScheduler
from refiner_ds.refiners.unclip.portable.samplers import UNFIT, sampler_in_place_of
scheduler = DDPMScheduler()
for kind in scheduler.compatibles:
    if kind.__name__ not in UNFIT:
        sampler_in_place_of(scheduler, kind.__name__)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr


def test_what_was_loaded_before_stays_seen(heavy, monkeypatch):
    monkeypatch.setitem(sys.modules, UNASKED[0], ModuleType(UNASKED[0]))
    module = sys.modules[UNASKED[0]]
    load(heavy)
    assert sys.modules[UNASKED[0]] is module
    assert all(sys.modules.get(name, module) is not None for name in UNASKED)
