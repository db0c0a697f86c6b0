"""Overlapping tiles: a large latent in windows of one size, and what was computed of each blended without a seam."""

from collections.abc import Callable
from math import ceil

import torch
from torch import Tensor

OVERLAP = 4
"""Neighbouring tiles share at least a quarter (1 / 4) of a tile's side."""

Window = tuple[slice, slice]
"""Rows and columns of one tile."""


class Tiles:
    """Windows of at most size x size that cover height x width, all alike, evenly spread.

    A window's weight rises from its border as a raised cosine over the shared quarter, and the weights of all windows
    are made to sum to one everywhere: what two tiles both computed is blended smoothly, which leaves no seam.
    """

    def __init__(self, height: int, width: int, size: int | None, device: torch.device) -> None:
        """Sides are in latents; without a size there is one window of all."""
        self.shape = height, width
        rows, columns = (_slices(length, min(length, size or length)) for length in self.shape)
        self.windows: list[Window] = [(row, column) for row in rows for column in columns]
        self._device = device

    def __len__(self) -> int:
        return len(self.windows)

    def of(self, whole: Tensor) -> list[Tensor]:
        """(..., height, width) cut into its windows."""
        return [whole[..., rows, columns] for rows, columns in self.windows]

    def blend(self, compute: Callable[[int], Tensor], factor: int = 1) -> Tensor:
        """The weighted mean (B, c, height * factor, width * factor) fp32 of what `compute` makes of each window.

        Args:
            compute: the result (B, c, rows * factor, columns * factor) of a window by its number.
            factor: how many times larger results are than windows; 1 / factor latents for pictures, say.
        """
        if len(self) == 1:
            return compute(0)
        height, width = (side * factor for side in self.shape)
        total, norm = torch.zeros((), device=self._device), torch.zeros(height, width, device=self._device)
        for number, window in enumerate(self.windows):
            rows, columns = (slice(side.start * factor, side.stop * factor) for side in window)
            weight = _ramp(rows, self._device)[:, None] * _ramp(columns, self._device)
            piece = compute(number)
            if not number:
                total = piece.new_zeros(*piece.shape[:-2], height, width)
            total[..., rows, columns] += piece * weight
            norm[rows, columns] += weight
        return total / norm


def _slices(length: int, size: int) -> list[slice]:
    """Evenly spread windows of `size` that cover `length`, neighbours sharing at least size // OVERLAP."""
    step = size - size // OVERLAP
    count = 1 + ceil((length - size) / step)
    starts = [round(i * (length - size) / max(1, count - 1)) for i in range(count)]
    return [slice(start, start + size) for start in starts]


def _ramp(side: slice, device: torch.device) -> Tensor:
    """Weights along one side: a raised cosine over the quarter at each end, one between."""
    length = side.stop - side.start
    from_border = torch.arange(length, device=device) + 0.5
    nearest = torch.minimum(from_border, length - from_border) / max(1, length // OVERLAP)
    return 0.5 - 0.5 * torch.cos(torch.pi * nearest.clamp(max=1))
