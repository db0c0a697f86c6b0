"""What one rank has to keep of training, as plain tensors on the host, and the file that it becomes. No pickle."""

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from refiner_ds.checkpoint.fragments import Cut, Fragment, Placed
from refiner_ds.checkpoint.tensor_file import total_bytes, write_tensors

MASTER, AVERAGE = "master", "average"
"""Kinds of flat shards beside the optimizer's own, whose kinds are its names for them, such as exp_avg."""


@dataclass(frozen=True)
class Snapshot:
    """A copy of one rank's part of the training state.

    Attributes:
        shards: flat shards by kind, one for each group of parameters: fp32 masters, moments, their moving average.
        cut: which values of which parameters each shard holds; what else lies in it is padding.
        shapes: of the parameters in the cut.
        loose: what belongs to a group's shard as a whole: a count of updates, moments in blocks of 8 bits.
        counters: plain values that are equal on all ranks.
    """

    shards: dict[str, list[Tensor]]
    cut: Cut
    shapes: dict[str, tuple[int, ...]]
    loose: dict[str, Tensor]
    counters: dict[str, Any]

    @property
    def nbytes(self) -> int:
        """Bytes that it takes on the host."""
        return total_bytes(tensor for group in (*self.shards.values(), self.loose.values()) for tensor in group)


def file_of(rank: int) -> str:
    """Name of a rank's file in a checkpoint."""
    return f"rank-{rank:05d}.safetensors"


def key_of(kind: str, name: str) -> str:
    """Name in the file of a fragment of one kind; what is loose has names without a slash."""
    return f"{kind}/{name}"


def write_snapshot(path: Path, snapshot: Snapshot) -> tuple[int, int]:
    """Writes a rank's file: every fragment by kind and parameter, flat. Returns its size and CRC-32C.

    Raises:
        OSError: it could not be written.
    """
    placed: list[tuple[int, Placed]] = [
        (group, each) for group, fragments in enumerate(snapshot.cut) for each in fragments
    ]
    tensors = {
        key_of(kind, each.fragment.name): shards[group].narrow(0, each.offset, each.fragment.count)
        for kind, shards in snapshot.shards.items()
        for group, each in placed
    }
    shapes = snapshot.shapes
    fragments = {
        each.fragment.name: {**asdict(each.fragment), "shape": shapes[each.fragment.name]} for _, each in placed
    }
    metadata = {"fragments": json.dumps(fragments), "counters": json.dumps(snapshot.counters)}
    return write_tensors(path, {**tensors, **snapshot.loose}, metadata)


def pieces_in(metadata: dict[str, str]) -> Iterator[tuple[Fragment, tuple[int, ...]]]:
    """Every fragment in a file, with the whole shape of its parameter, from the file's metadata."""
    for described in json.loads(metadata["fragments"]).values():
        shape = tuple(described.pop("shape"))
        yield Fragment(**described), shape
