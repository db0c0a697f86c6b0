"""What the objective needs of a batch, made by the frozen encoders."""

from dataclasses import dataclass

import torch
from torch import Tensor

from refiner_ds.batch import Batch, EncodedBatch
from refiner_ds.refiners.unclip.portable.frozen_encoders import Encoders


@dataclass(frozen=True)
class Features:
    """What the objective needs of a batch: latents (B, c, h, w) of three views, the reference's embedding (B, d).

    All are fp32. `positions` are the samples' places in the stream, which key their randomness.
    """

    render: Tensor
    gt: Tensor
    cond: Tensor
    embedding: Tensor
    positions: tuple[int, ...]


def features_of(encoders: Encoders, batch: Batch) -> Features:
    """Latents of all views and the embedding of the reference, of a batch that is on the device; no gradients.

    What was encoded before is taken as it is.
    """
    if isinstance(batch, EncodedBatch):
        render, gt, cond, embedding = (
            each.float().contiguous() for each in (batch.render, batch.gt, batch.cond, batch.embedding)
        )
        return Features(render, gt, cond, embedding, batch.positions)
    cond, render, gt = encoders.latents(torch.cat([batch.cond, batch.render, batch.gt])).chunk(3)
    return Features(render, gt, cond, encoders.embedding(batch.cond), batch.positions)
