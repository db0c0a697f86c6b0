"""A stored picture: what can be asked of one, however it is stored, so that a crop takes no more than it needs."""

from abc import ABC, abstractmethod

import numpy as np
from PIL import Image


class Stored(ABC):
    """A stored picture of width x height pixels, of which columns can be had without the rest."""

    def __init__(self, width: int, height: int) -> None:
        self.width, self.height = width, height

    @abstractmethod
    def columns(self, first: int, last: int) -> np.ndarray:
        """(height, last - first, 3) uint8 RGB: the columns first <= x < last; perhaps a view that must not be written.

        Raises:
            PictureError: the bytes are damaged.
        """

    def image(self, first: int, last: int) -> Image.Image:
        """The same columns as an RGB picture of Pillow.

        Raises:
            PictureError: the bytes are damaged.
        """
        return Image.fromarray(self.columns(first, last))


class Pixels(Stored):
    """A picture whose pixels lie there as (height, width, 3) uint8 RGB."""

    def __init__(self, pixels: np.ndarray) -> None:
        super().__init__(pixels.shape[1], pixels.shape[0])
        self._pixels = pixels

    def columns(self, first: int, last: int) -> np.ndarray:
        return self._pixels[:, first:last]


class Loaded(Stored):
    """An RGB picture that Pillow has decoded."""

    def __init__(self, picture: Image.Image) -> None:
        super().__init__(*picture.size)
        self._picture = picture

    def columns(self, first: int, last: int) -> np.ndarray:
        return np.asarray(self.image(first, last))

    def image(self, first: int, last: int) -> Image.Image:
        if (first, last) == (0, self.width):
            return self._picture
        return self._picture.crop((first, 0, last, self.height))
