"""Counts what is launched on a device, by operator."""

from collections import Counter

from torch.utils._python_dispatch import TorchDispatchMode

READS = ("_local_scalar_dense", "is_nonzero", "nonzero")
"""Operators for which the host waits for the device."""


class Counting(TorchDispatchMode):
    """Within, counts operators by name, but views, and the bytes that `cat` writes."""

    def __init__(self) -> None:
        super().__init__()
        self.operators: Counter[str] = Counter()
        self.joined_bytes = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        if not _is_view(func):
            name = func._schema.name.removeprefix("aten::")
            self.operators[name] += 1
            self.joined_bytes += result.nbytes if name == "cat" else 0
        return result

    @property
    def reads(self) -> int:
        return sum(self.operators[name] for name in READS)


def _is_view(func) -> bool:
    return any(each.alias_info is not None and not each.alias_info.is_write for each in func._schema.returns)
