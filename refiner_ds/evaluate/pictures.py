"""Pictures of repaired samples, for eyes."""

from collections.abc import Sequence

import torch
from PIL import Image

from refiner_ds.evaluate.repairs import Repaired

GAP = 4
"""Pixels between the rows of a sheet."""


def side_by_side(sample: Repaired) -> Image.Image:
    """Render, repaired, gt and cond in one row."""
    pictures = (sample.batch.render, sample.picture, sample.batch.gt, sample.batch.cond)
    return Image.fromarray(torch.cat(pictures, dim=-1)[0].permute(1, 2, 0).numpy())


def sheet(samples: Sequence[Repaired]) -> Image.Image:
    """The widest samples, one `side_by_side` row each, on white."""
    rows = [side_by_side(sample) for sample in samples]
    width = max(row.width for row in rows)
    rows = [row for row in rows if row.width == width]
    whole = Image.new("RGB", (width, sum(row.height + GAP for row in rows) - GAP), "white")
    top = 0
    for row in rows:
        whole.paste(row, (0, top))
        top += row.height + GAP
    return whole
