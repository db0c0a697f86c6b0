"""Gradients added up whole on each rank over the micro-batches of an update, and reduced once, to the rank's shard.

DeepSpeed's ZeRO handles each gradient as it comes: in Python, by several copies, and at stage 2 by a reduction over all
ranks in every micro-batch. Here autograd adds them in place to one flat accumulator, and nothing else happens until the
last micro-batch: then one reduce-scatter, as ZeRO's paper has it (Rajbhandari et al. 2020, arXiv:1910.02054, section
7.1), sends half of what DeepSpeed's all-reduce does.
"""

from typing import Any

import torch
from torch import Tensor

from refiner_ds.checkpoint.fragments import Cut

ROW = 4096
"""Values whose squares are added up in fp32, as fp32 can hold their sum; rows are added up in fp64."""


class Shard(list):
    """Gradients of one rank's shard by parameter, views of `flat_partition`, as DeepSpeed's step takes them."""

    def __init__(self, views: list[Tensor], flat_partition: Tensor) -> None:
        super().__init__(views)
        self.flat_partition = flat_partition


class WholeGradients:
    """Accumulators of all parameters that `zero` trains; DeepSpeed's own hooks on them are taken off.

    Args:
        zero: DeepSpeed's optimizer of stage 1 or 2 (DeepSpeedZeroOptimizer), without offload.
        cut: by group, what this rank's shard holds.
        dtype: gradients are added up in it.
    """

    def __init__(self, zero: Any, cut: Cut, dtype: torch.dtype) -> None:
        self._zero, self._cut = zero, cut
        for hook in zero._grad_acc_hooks:
            hook.remove()
        zero.get_grad_norm_direct = self._norm
        self._flats = [torch.zeros_like(weights, dtype=dtype) for weights in zero.bit16_groups_flat]
        self._views = [
            (parameter, _same_place(parameter, weights, flat))
            for group, weights, flat in zip(zero.bit16_groups, zero.bit16_groups_flat, self._flats, strict=True)
            for parameter in group
        ]
        for parameter, _ in self._views:
            parameter.grad_dtype = dtype

    def begin(self) -> None:
        """Before the first micro-batch of an update: nothing has been added up."""
        for flat in self._flats:
            flat.zero_()
        for parameter, view in self._views:
            parameter.grad = view

    @torch.no_grad()
    def reduce(self) -> None:
        """After the last: hands the mean over ranks of this rank's shard to DeepSpeed's step. All ranks must call."""
        for group, (flat, placed) in enumerate(zip(self._flats, self._cut, strict=True)):
            shard = self._scattered(flat)
            views = [shard.narrow(0, each.offset, each.fragment.count) for each in placed]
            self._zero.averaged_gradients[group] = Shard(views, shard)

    def _norm(self, shard: Shard, *_: Any) -> Tensor:
        """The norm of all ranks' shards, fp32 scalar; -1 where it is not finite, which DeepSpeed's step skips.

        DeepSpeed's own takes one parameter after the other to fp64.
        """
        square = _square(shard.flat_partition).float()
        torch.distributed.all_reduce(square, group=self._zero.dp_process_group)
        norm = square.sqrt()
        return torch.where(norm.isfinite(), norm, -1.0)

    def _scattered(self, flat: Tensor) -> Tensor:
        """This rank's part of the mean of `flat` over ranks; reduced bucket by bucket, in the precision of the JSON."""
        ranks = self._zero.dp_process_group
        count = torch.distributed.get_world_size(ranks)
        if count == 1:
            return flat
        by_rank = flat.view(count, -1)
        shard = torch.empty_like(by_rank[0])
        for bucket, mean in zip(by_rank.split(self._width(count), 1), shard.split(self._width(count)), strict=True):
            sent = torch.empty(bucket.shape, dtype=self._zero.communication_data_type, device=flat.device)
            torch.div(bucket, count, out=sent)  # before the sum, which fp16 could not hold
            received = torch.empty_like(sent[0])
            torch.distributed.reduce_scatter_single(received, sent.view(-1), group=ranks)
            mean.copy_(received)
        return shard

    def _width(self, ranks: int) -> int:
        """Elements of each rank that are reduced at once."""
        return max(1, int(self._zero.reduce_bucket_size) // ranks)


def _square(flat: Tensor) -> Tensor:
    """Sum of the squares of a vector, fp64 scalar."""
    whole = flat.numel() // ROW * ROW
    norms = torch.linalg.vector_norm(flat[:whole].view(-1, ROW), dim=1, dtype=torch.float32)
    rest = torch.linalg.vector_norm(flat[whole:], dtype=torch.float32)
    return norms.double().square().sum() + rest.double().square()


def _same_place(parameter: Tensor, weights: Tensor, flat: Tensor) -> Tensor:
    """The view of `flat` that lies where a parameter lies in `weights`, in its shape."""
    offset = (parameter.data_ptr() - weights.data_ptr()) // weights.element_size()
    return flat.narrow(0, offset, parameter.numel()).view(parameter.shape)
