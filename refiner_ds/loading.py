"""Loading what is heavy: torch, diffusers and deepspeed are some 4,500 modules, which stay until the process ends."""

import gc
import importlib
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType

UNASKED = ("bitsandbytes", "boto3", "matplotlib")
"""What diffusers, transformers and accelerate load wherever it is installed, for what nobody here does with them:
quantization, SageMaker, plots. bitsandbytes alone took three of fourteen seconds. What is needed later, as its
optimizer, is imported then. scipy is none of them, as some of diffusers' samplers need it."""


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
        with _unseen(UNASKED):
            return importlib.import_module(name)
    finally:
        gc.freeze()
        if was_enabled:
            gc.enable()


@contextmanager
def _unseen(names: tuple[str, ...]) -> Iterator[None]:
    """Within, who asks whether these are installed, but for what is loaded already, is told no."""
    hidden = [name for name in names if name not in sys.modules]
    sys.modules.update(dict.fromkeys(hidden))  # type: ignore[arg-type]
    try:
        yield
    finally:
        for name in hidden:
            if sys.modules.get(name) is None:
                sys.modules.pop(name, None)
