"""Pictures of repaired samples, for eyes."""

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from refiner_ds.evaluate.repairs import Judged, Repaired

GAP = 4
"""Pixels between the rows of a sheet."""
VIEWS = ("render", "repaired", "gt", "cond")
QUALITY = 92
"""Of JPEG; figures are made from the pictures themselves."""


@dataclass(frozen=True)
class Shown:
    """A sample's figures, and JPEG files of its pictures by name: render, repaired, gt and cond."""

    judged: Judged
    pictures: dict[str, bytes]


class Album:
    """Pictures of many samples, kept on the disk until it is known which of them are shown."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def keep(self, sample: Repaired) -> None:
        """Keeps the pictures of a sample."""
        for name, picture in _views(sample).items():
            Image.fromarray(_array(picture)).save(self._path(sample.judged, name), "JPEG", quality=QUALITY)

    def shown(self, judged: Judged) -> Shown:
        """What was kept of a sample."""
        return Shown(judged, {name: self._path(judged, name).read_bytes() for name in VIEWS})

    def _path(self, judged: Judged, name: str) -> Path:
        return self._folder / f"{judged.position}-{name}.jpg"


def _views(sample: Repaired) -> dict[str, Tensor]:
    batch = sample.batch
    return dict(zip(VIEWS, (batch.render, sample.picture, batch.gt, batch.cond), strict=True))


def _array(picture: Tensor) -> np.ndarray:
    return picture[0].permute(1, 2, 0).numpy()


def side_by_side(sample: Repaired) -> Image.Image:
    """Render, repaired, gt and cond in one row."""
    return Image.fromarray(_array(torch.cat([*_views(sample).values()], dim=-1)))


def sheet(samples: Sequence[Shown]) -> Image.Image:
    """The widest samples, a row of render, repaired, gt and cond each, on white."""
    rows = [[Image.open(io.BytesIO(file)) for file in sample.pictures.values()] for sample in samples]
    width = max(row[0].width for row in rows)
    rows = [row for row in rows if row[0].width == width]
    whole = Image.new("RGB", (len(VIEWS) * width, sum(row[0].height + GAP for row in rows) - GAP), "white")
    top = 0
    for row in rows:
        for column, picture in enumerate(row):
            whole.paste(picture, (column * width, top))
        top += row[0].height + GAP
    return whole
