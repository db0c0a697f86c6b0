"""The views of a sample from picture files, as `repair` and `evaluate` read them."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

from refiner_ds.data.images import PictureError, decode, to_array
from refiner_ds.errors import UserError


def read_views(files: Mapping[str, Path]) -> dict[str, Tensor]:
    """(1, 3, H, W) uint8 by view.

    Raises:
        UserError: a file cannot be read or is no usable picture, or the views differ in size.
    """
    views = {view: _read(path) for view, path in files.items()}
    sizes = {view: f"{picture.shape[-1]}x{picture.shape[-2]}" for view, picture in views.items()}
    if len(set(sizes.values())) > 1:
        text = ", ".join(f"{view} {size}" for view, size in sizes.items())
        raise UserError(
            f"{files['render']} and its partners differ in size ({text}), so they do not align; "
            "give pictures of one size."
        )
    return views


def read_with_references(files: Mapping[str, Path]) -> tuple[Tensor, Tensor]:
    """Render (1, 3, H, W) and its R references (1, R, 3, H, W), uint8, where all views but `render` are references.

    Raises:
        UserError: as `read_views`.
    """
    views = read_views(files)
    render = views.pop("render")
    return render, torch.stack(list(views.values()), dim=1)


def check_views(samples: Sequence[Mapping[str, Path]], tell: Callable[[str, int, int], None]) -> None:
    """Reads all samples once: they are refused before a model is loaded, not when half of them are done.

    Raises:
        UserError: as `read_views`.
    """
    for number, files in enumerate(samples, start=1):
        read_views(files)
        tell("checking", number, len(samples))


def _read(path: Path) -> Tensor:
    try:
        return torch.from_numpy(to_array(decode(path.read_bytes())))[None]
    except OSError as error:
        raise UserError(f"picture {path} cannot be read ({error.strerror}); mend the path.") from error
    except PictureError as error:
        raise UserError(f"picture {path} {error}.") from error
