"""The batch contract: the one meeting point of data and refiners. Pictures stay uint8 until they are on the device."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True)
class Batch:
    """Aligned pictures of B samples, each (B, 3, H, W) uint8 RGB, all from one aspect bucket or of one native size.

    In memory they may be channels last.

    Attributes:
        render: what the Gaussian field shows of the target view.
        gt: the photograph of the target view.
        cond: the photograph of the nearby reference view.
        positions: place of each sample in the endless stream of the run; keys all its randomness.
        keys: name of each sample in its shard.
        replaced: broken samples that others of the batch stand in for, each a sentence with its name and the cause.
    """

    render: Tensor
    gt: Tensor
    cond: Tensor
    positions: tuple[int, ...]
    keys: tuple[str, ...]
    replaced: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.keys)

    def pin_memory(self) -> "Batch":
        """The same batch in page-locked memory, which a data loader asks for by this name."""
        return self._map(lambda picture: picture.pin_memory())

    def to(self, device: torch.device) -> "Batch":
        """The same batch with its pictures on `device`; the copy from pinned memory overlaps with computing."""
        return self._map(lambda picture: picture.to(device, non_blocking=True))

    @property
    def tensors(self) -> dict[str, Tensor]:
        """All its tensors by name, samples along the first axis."""
        return {"render": self.render, "gt": self.gt, "cond": self.cond}

    def alone(self, number: int) -> "Batch":
        """The batch of one of its samples, whose pictures are views of these."""
        one = self._map(lambda picture: picture[number : number + 1])
        return replace(one, positions=(self.positions[number],), keys=(self.keys[number],))

    def _map(self, change: Callable[[Tensor], Tensor]) -> "Batch":
        changed: dict[str, Any] = {name: change(tensor) for name, tensor in self.tensors.items()}
        return replace(self, **changed)


@dataclass(frozen=True, kw_only=True)
class EncodedBatch(Batch):
    """A batch whose pictures were encoded before: views are latents (B, c, h, w), fp16 or bf16, scaled.

    Attributes:
        embedding: (B, d) of the reference, in the same precision.
    """

    embedding: Tensor

    @property
    def tensors(self) -> dict[str, Tensor]:
        """All its tensors by name, samples along the first axis."""
        return {**super().tensors, "embedding": self.embedding}


def batch_of(tensors: Mapping[str, Any], positions: tuple[int, ...], keys: tuple[str, ...]) -> Batch:
    """The inverse of `Batch.tensors`."""
    kind = EncodedBatch if "embedding" in tensors else Batch
    return kind(**tensors, positions=positions, keys=keys)


def to_unit(pictures: Tensor) -> Tensor:
    """(..., H, W) uint8 in 0..255 to fp32 in [-1, 1]: x / 127.5 - 1."""
    return pictures.float() / 127.5 - 1.0
