"""Reads a complete checkpoint, cut by any number of ranks, as any other cut or as whole tensors, one at a time."""

import json
import math
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor

from refiner_ds.checkpoint.fragments import Fragment, covering
from refiner_ds.checkpoint.snapshot import AVERAGE, MASTER, file_of, key_of, pieces_in
from refiner_ds.errors import UserError


@dataclass(frozen=True)
class _Piece:
    file: Any
    fragment: Fragment
    shape: tuple[int, ...]


class SavedState:
    """The training state in a checkpoint's folder. Files are mapped; only what is asked for is read."""

    def __init__(self, path: Path) -> None:
        self._path = path
        names = sorted(each.name for each in path.glob("rank-*.safetensors"))
        self._files = {name: safe_open(path / name, framework="pt") for name in names}

    @cached_property
    def kinds(self) -> set[str]:
        """Kinds of values that every parameter has: master, average, exp_avg, ..."""
        return {key.partition("/")[0] for file in self._files.values() for key in _keys(file) if "/" in key}

    @cached_property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Shape of every trained parameter by name."""
        return {name: pieces[0].shape for name, pieces in self._pieces.items()}

    @property
    def counters(self) -> dict[str, Any]:
        """The plain values that all ranks had."""
        return dict(json.loads(next(iter(self._files.values())).metadata()["counters"]))

    def fill(self, kind: str, fragment: Fragment, out: Tensor) -> None:
        """Copies a fragment into `out`, flat and of its length, whatever ranks hold the values.

        Raises:
            UserError: some of them are in files that are not here.
        """
        pieces = self._pieces.get(fragment.name, [])
        try:
            for number, part in covering(fragment, [piece.fragment for piece in pieces]):
                first = part.start - pieces[number].fragment.start
                values = pieces[number].file.get_slice(key_of(kind, fragment.name))[first : first + part.count]
                out.narrow(0, part.start - fragment.start, part.count).copy_(values)
        except LookupError as error:
            raise UserError(
                f"{self._path} lacks {error} here: it was written by several nodes into folders of their own; bring "
                "all its rank-*.safetensors files into one folder that all nodes see, or start on the same nodes."
            ) from error

    def whole(self, name: str, kind: str = MASTER) -> Tensor:
        """A parameter's fp32 values of one kind, in its shape."""
        shape = self.shapes[name]
        out = torch.empty(math.prod(shape), dtype=torch.float32)
        self.fill(kind, Fragment(name, 0, out.numel()), out)
        return out.view(shape)

    @property
    def has_average(self) -> bool:
        """Whether it holds a moving average of the weights."""
        return AVERAGE in self.kinds

    def loose(self, rank: int) -> dict[str, Tensor]:
        """What belonged to a rank's shards as wholes; of a rank that did not exist, what rank 0 had."""
        file = self._files.get(file_of(rank)) or next(iter(self._files.values()))
        return {key: file.get_tensor(key) for key in _keys(file) if "/" not in key}

    @cached_property
    def _pieces(self) -> dict[str, list[_Piece]]:
        """By parameter: which files hold which part of it."""
        found: dict[str, list[_Piece]] = {}
        for file in self._files.values():
            for fragment, shape in pieces_in(file.metadata()):
                found.setdefault(fragment.name, []).append(_Piece(file, fragment, shape))
        return found


def _keys(file: Any) -> list[str]:
    return list(file.keys())
