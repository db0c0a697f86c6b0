"""The arithmetic of micro-batches, counted from the operators that run; once per picture shape, as it never differs."""

from collections.abc import Mapping
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry, sdpa_flop_count

aten = torch.ops.aten
ATTENTION: Mapping[Any, tuple[int, int]] = {
    aten._scaled_dot_product_flash_attention: (0, 1),
    aten._scaled_dot_product_efficient_attention: (0, 1),
    aten._scaled_dot_product_cudnn_attention: (0, 1),
    aten._scaled_dot_product_flash_attention_for_cpu: (0, 1),
    aten._scaled_dot_product_flash_attention_backward: (1, 2),
    aten._scaled_dot_product_efficient_attention_backward: (1, 2),
    aten._scaled_dot_product_cudnn_attention_backward: (1, 2),
    aten._scaled_dot_product_flash_attention_for_cpu_backward: (1, 2),
}
"""Fused attention: the place of the query among the arguments, which key and value follow, and how many times the two
products of the way forth it comes to. torch's formula has five products for the way back, one of which computes the
scores again, and none for CPUs."""


class Arithmetic(TorchDispatchMode):
    """Within, counts the floating-point operations of this thread's torch calls and of the way back from them.

    Products, convolutions and attention count, a multiplication and an addition as two (`torch.utils.flop_counter`);
    what works element by element, and the optimizer, does not. Everything is computed to the last bit as it would be
    without. Frozen layers are to run under `no_grad`: in inference mode they come whole, and do not count.

    Args:
        goes_back: it is around a way back, where blocks that activation checkpointing computes again are left out:
            they alone run with gradients on.
    """

    def __init__(self, goes_back: bool = False) -> None:
        super().__init__()
        self.flops = 0
        self._goes_back = goes_back

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        packet = getattr(func, "_overloadpacket", None)
        result = func(*args, **kwargs)  # whole: torch's FlopCounterMode takes some apart, which rounds differently
        if not (self._goes_back and torch.is_grad_enabled()):
            self.flops += _flops_of(packet, args, kwargs, result)
        return result


def _flops_of(packet: Any, args: Any, kwargs: Any, result: Any) -> int:
    if packet in ATTENTION:
        first, times = ATTENTION[packet]
        return times * int(sdpa_flop_count(*(tensor.shape for tensor in args[first : first + 3])))
    return int(flop_registry[packet](*args, **kwargs, out_val=result)) if packet in flop_registry else 0
