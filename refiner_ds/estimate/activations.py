"""What one micro-batch takes: the training step itself, run on the meta device, its tensors counted and not made.

Attention is counted as the fused kernels of GPUs keep it: query, key, value, output and the log-sum-exp of each row in
fp32 (FlashAttention-2, Dao 2023, section 3.1; `_scaled_dot_product_flash_attention` and `_efficient_attention` in
torch's derivatives.yaml). torch's fused kernel for CPUs keeps the same, so that is what runs here; the plain product
that meta tensors would take otherwise keeps whole attention matrices.
"""

import weakref
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks
from torch.utils._python_dispatch import TorchDispatchMode

from refiner_ds.flops import Arithmetic
from refiner_ds.refiners.protocol import Checkpointed


class Step(Protocol):
    """A training step whose tensors have shapes and no values."""

    @property
    def network(self) -> nn.Module:
        """What is trained."""

    def place(self, dtype: torch.dtype, checkpointed: Checkpointed) -> None:
        """Gives all parts the precision in which they train, and readies the network for it."""

    def encode(self, size: int, crop: int) -> Any:
        """Features of `size` samples of `crop` x `crop` pixels, from the frozen parts."""

    def loss(self, dtype: torch.dtype, features: Any) -> Tensor:
        """The loss of one micro-batch."""


@dataclass(frozen=True)
class MicroBatch:
    """Bytes and arithmetic of one micro-batch of square crops.

    Attributes:
        crop: side in pixels.
        kept: what the forward pass keeps for the way back, each storage once, weights aside.
        workspace: what is there beside that at the worst moment of both ways; with gradient checkpointing the block
            that is computed again. A weight's gradient counts until it is complete, as ZeRO-2 takes it away then.
        encoding: at the worst moment of the frozen encoders, before all that.
        flops: floating-point operations of the network both ways, as `flops` counts them; what is computed again counts
            again.
    """

    crop: int
    kept: int
    workspace: int
    encoding: int
    flops: int


class Kept(saved_tensors_hooks):
    """Counts what is saved for the way back within: bytes of distinct storages, those of `weights` aside."""

    def __init__(self, weights: Iterable[Tensor]) -> None:
        self._weights = {_identity(weight) for weight in weights}
        self._storages: dict[int, Any] = {}
        super().__init__(self._pack, lambda tensor: tensor)

    def take(self) -> int:
        """Bytes so far; lets the storages go, which would live on otherwise."""
        total = sum(storage.nbytes() for storage in self._storages.values())
        self._storages.clear()
        return total

    def _pack(self, tensor: Tensor) -> Tensor:
        if _identity(tensor) not in self._weights:
            self._storages[_identity(tensor)] = tensor.untyped_storage()
        return tensor


class _Ledger(TorchDispatchMode):
    """Bytes of all storages that were made within and live, and the most there ever were."""

    def __init__(self) -> None:
        super().__init__()
        self.live = self.peak = 0
        self._alive: dict[int, weakref.ref] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = func(*args, **(kwargs or {}))
        given = {_identity(tensor) for tensor in _tensors((args, *(kwargs or {}).values()))}
        for tensor in _tensors((made,)):
            if _identity(tensor) not in given:  # else a view
                self._note(tensor)
        return made

    def _note(self, tensor: Tensor) -> None:
        key, storage = _identity(tensor), tensor.untyped_storage()
        if key in self._alive:
            return
        size = storage.nbytes()

        def gone(_: object) -> None:
            del self._alive[key]
            self.live -= size

        self._alive[key] = weakref.ref(storage, gone)
        self.live += size
        self.peak = max(self.peak, self.live)


@contextmanager
def _fused_attention() -> Iterator[None]:
    """Within, meta tensors attend by the fused kernel, which saves what a GPU's would.

    A mode of torch.overrides would be left on the way back, where checkpointed blocks are computed again.
    """
    library = torch.library.Library("aten", "IMPL")
    try:
        library.impl("scaled_dot_product_attention", _attend, "AutogradMeta")
        yield
    finally:
        library._destroy()


def _attend(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    *,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Tensor:
    kernel = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
    return kernel(query, key, value, dropout_p, is_causal, attn_mask=attn_mask, scale=scale)[0]


def measure(step: Step, dtype: torch.dtype, crop: int, size: int, checkpointed: Checkpointed) -> MicroBatch:
    """Runs one micro-batch of `size` crops of `crop` x `crop` pixels forth and back, and counts."""
    step.place(dtype, checkpointed)
    weights = list(step.network.parameters())
    with _fused_attention(), _Ledger() as encoding:
        features = step.encode(size, crop)
    hooks = [weight.register_post_accumulate_grad_hook(_drop) for weight in weights if weight.requires_grad]
    try:
        with _fused_attention(), _Ledger() as ledger, Arithmetic() as arithmetic:
            with (saved := Kept(weights)):
                loss = step.loss(dtype, features)
            kept = saved.take()
            loss.backward()
    finally:
        for hook in hooks:
            hook.remove()
    return MicroBatch(crop, kept, ledger.peak - kept, encoding.peak, arithmetic.flops)


def _drop(weight: Tensor) -> None:
    weight.grad = None


def _tensors(values: Iterable[Any]) -> Iterator[Tensor]:
    """All tensors in what an operator takes or gives."""
    for value in values:
        if isinstance(value, Tensor):
            yield value
        elif isinstance(value, tuple | list):
            yield from _tensors(value)


def _identity(tensor: Tensor) -> int:
    return tensor.untyped_storage()._cdata
