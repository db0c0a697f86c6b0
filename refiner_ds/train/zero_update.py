"""DeepSpeed's update at ZeRO-1 and 2, spared what nothing needs; and unscaled by the scale that its gradients have."""

from typing import Any

import torch
from torch import Tensor


class SparedUpdate:
    """Takes out of DeepSpeed's step what costs time or memory for nothing.

    - Weights are views of their group's flat ones from the start; they are not laid out anew after every update, which
      takes several operators in Python for each of them.
    - Gradients that are not finite are known by their norm, which is not finite then; nothing else looks for them, by a
      dozen operators for each parameter.
    - A fused optimizer divides gradients by loss scale and clipping as it reads them, without a pass of its own.
    - In fp32 the masters are a rank's shard of the network's weights themselves, and no copy.

    DeepSpeed (0.19.8) raises the loss scale between backward and unscaling, so in the update that raises it gradients
    come out half as long, unless they are clipped. Here they are divided by the scale that they have.

    Args:
        zero: DeepSpeed's optimizer of stage 1 or 2 (DeepSpeedZeroOptimizer), without offload.
    """

    def __init__(self, zero: Any) -> None:
        self._zero, self._follow_scale = zero, zero._update_scale
        self._scale = 1.0
        zero._update_scale = self._update_scale
        zero.unscale_and_clip_grads = self._unscale_and_clip
        zero._update_model_bit16_weights = lambda group: None
        zero.check_overflow = lambda partition_gradients: None
        if zero.dtype == torch.float32:
            self._share_masters()

    def _share_masters(self) -> None:
        zero = self._zero
        for master, shards in zip(
            zero.single_partition_of_fp32_groups, zero.parallel_partitioned_bit16_groups, strict=True
        ):
            master.data = shards[torch.distributed.get_rank(zero.dp_process_group)].data
        zero._link_all_hp_params()  # what it knows of the copies would keep them

    def _update_scale(self, has_overflow: bool = False) -> None:
        self._scale = float(self._zero.loss_scale)
        self._follow_scale(has_overflow)

    def _unscale_and_clip(self, gradients: list[Tensor], norm: Tensor) -> None:
        """Divides flat gradients by loss scale and clipping, or tells a fused optimizer to; `norm` is still scaled."""
        clip, optimizer = self._zero.clip_grad, self._zero.optimizer
        if not clip and self._scale == 1:
            optimizer.grad_scale = None
            return
        divisor = torch.full((), self._scale, device=gradients[0].device)
        if clip:
            divisor *= ((norm / divisor + 1e-6) / clip).clamp(min=1)
        if getattr(optimizer, "_step_supports_amp_scaling", False):
            optimizer.grad_scale = divisor  # as torch.amp.GradScaler does
        else:
            for gradient in gradients:
                gradient.div_(divisor)
