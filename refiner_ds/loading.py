"""Loading what is heavy: torch, diffusers and deepspeed are some 5,000 modules, which stay until the process ends."""

import gc
import importlib
import sys
from types import ModuleType


def load(name: str) -> ModuleType:
    """Imports a module and all that it takes, without looking for garbage among what stays, then or later.

    Python would look through the growing million of objects again and again while they are made, a fifth of the time
    that the import takes, then now and then in training, and once more at the end, which took seconds.
    """
    if name in sys.modules:
        return sys.modules[name]
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        return importlib.import_module(name)
    finally:
        gc.freeze()
        if was_enabled:
            gc.enable()
