"""How far crops of latents are from latents of crops: by their place, in the reference's embedding, in the loss."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from statistics import median
from typing import Any

import torch
from torch import Tensor

from refiner_ds.bench.report import table

PLACES = (0, 1, 2, 3, 4, 8, 16, 32)
"""Columns of latents from the nearest cut, from which on each part of a crop goes up to the next."""


@dataclass(frozen=True)
class Crop:
    """One crop by both ways; where a cut is the picture's own border, both saw the same beyond it.

    Attributes:
        cut: latents (V, c, h, h) cut from those of the whole picture, as they would be stored.
        exact: those of the crop's pixels alone, of the same shape.
        is_cut: whether there is more of the picture to the left and to the right.
        cosine: of the embedding of the nearest window, and that of the crop itself.
        losses: of the same draws from what is cut, with the nearest embedding, and from what is exact.
    """

    cut: Tensor
    exact: Tensor
    is_cut: tuple[bool, bool]
    cosine: float
    losses: tuple[float, float]


@dataclass(frozen=True)
class Part:
    """Columns from `first` to `last` away from the nearest cut.

    Attributes:
        error: root mean square of the difference, as a share of that of the exact latents.
    """

    first: int
    last: int
    error: float


@dataclass(frozen=True)
class Comparison:
    """What came of all crops.

    Attributes:
        parts: from the cuts to the middle.
        error: over whole crops, like that of a part.
        cosine: median and least.
        loss, exact_loss: means.
        loss_difference: mean of their absolute difference, as a share of the exact mean.
    """

    crops: int
    parts: list[Part]
    error: float
    cosine: tuple[float, float]
    loss: float
    exact_loss: float
    loss_difference: float


def compare(crops: Sequence[Crop]) -> Comparison:
    """All crops, at least one, together; those of different sizes by their places alike."""
    firsts = torch.tensor(PLACES)
    errors, powers = torch.zeros(len(PLACES), dtype=torch.float64), torch.zeros(len(PLACES), dtype=torch.float64)
    furthest = 0
    for crop in crops:
        places = _places(crop.exact.shape[-1], crop.is_cut)
        part = torch.bucketize(places, firsts, right=True) - 1
        for sums, numbers in ((errors, crop.cut.double() - crop.exact.double()), (powers, crop.exact.double())):
            sums.index_add_(0, part, numbers.square().sum(dim=(0, 1, 2)))
        furthest = max(furthest, int(places.max()))
    lasts = [*(first - 1 for first in PLACES[1:]), furthest]
    shares = (errors / powers).sqrt().tolist()
    parts = zip(PLACES, (min(last, furthest) for last in lasts), shares, strict=True)
    losses, exact = ([crop.losses[which] for crop in crops] for which in (0, 1))
    differences = [abs(one - other) for one, other in zip(losses, exact, strict=True)]
    return Comparison(
        len(crops),
        [Part(*part) for part in parts if part[0] <= furthest],
        float((errors.sum() / powers.sum()).sqrt()),
        (median(crop.cosine for crop in crops), min(crop.cosine for crop in crops)),
        sum(losses) / len(crops),
        sum(exact) / len(crops),
        sum(differences) / sum(exact),
    )


def _places(width: int, is_cut: tuple[bool, bool]) -> Tensor:
    """(width,) of each column, how many are between it and the nearest cut; at least one side is cut."""
    columns = torch.arange(width)
    far = torch.full_like(columns, width)
    return torch.minimum(columns if is_cut[0] else far, columns.flip(0) if is_cut[1] else far)


def as_json(found: Comparison, about: Mapping[str, Any]) -> dict[str, Any]:
    """All of it by name."""
    return {"about": dict(about), **asdict(found)}


def as_markdown(found: Comparison, about: Mapping[str, Any]) -> str:
    """The page: how it was measured, latents by their place, and what follows for embedding and loss."""
    rows = [[_columns(part), f"{part.error:.2%}"] for part in found.parts]
    lines = (
        f"Whole crops: {found.error:.2%}.",
        f"Embedding of the nearest window: cosine {found.cosine[0]:.4f} in the median, {found.cosine[1]:.4f} at least.",
        f"Loss: {found.loss:.4f} from cut latents, {found.exact_loss:.4f} from exact ones "
        f"({found.loss / found.exact_loss - 1:+.2%}); a sample's differs by {found.loss_difference:.2%} in the mean.",
    )
    parts = [
        f"`{about['command']}`\n\n{about['machine']}; {about['date']}; {about['what']}.",
        table(("columns of latents from the cut", "error, as a share of the latents"), rows),
        "\n".join(lines),
    ]
    return "\n\n".join(parts) + "\n"


def _columns(part: Part) -> str:
    return str(part.first) if part.first == part.last else f"{part.first} to {part.last}"
