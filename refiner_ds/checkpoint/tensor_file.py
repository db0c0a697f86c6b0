"""safetensors files as checkpoints need them: streamed to disk without a second copy, with a checksum, and synced."""

import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import BinaryIO

import google_crc32c
import torch
from torch import Tensor

from refiner_ds.checkpoint.checksum import CHUNK

DTYPES = {
    torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16", torch.float64: "F64",
    torch.uint8: "U8", torch.int8: "I8", torch.int32: "I32", torch.int64: "I64", torch.bool: "BOOL",
}  # fmt: skip
"""The format's names (github.com/huggingface/safetensors, "Format")."""


def write_tensors(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> tuple[int, int]:
    """Writes contiguous tensors of the CPU in their order and brings them to disk.

    Returns:
        size in bytes, and the CRC-32C of the file.

    Raises:
        OSError: the disk is full, or whatever else the system says.
    """
    size = crc = 0
    with path.open("wb", buffering=0) as file:
        for part in (_header(tensors, metadata), *(_bytes_of(tensor) for tensor in tensors.values())):
            for start in range(0, len(part), CHUNK):
                chunk = part[start : start + CHUNK]
                _write(file, chunk)
                crc = google_crc32c.extend(crc, chunk.tobytes())
            size += len(part)
        os.fsync(file.fileno())
    return size, crc


def _header(tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> memoryview:
    """The length of a JSON object, and the object: type, shape and place of every tensor."""
    described: dict[str, object] = {"__metadata__": dict(metadata)}
    place = 0
    for name, tensor in tensors.items():
        assert tensor.is_contiguous() and tensor.device.type == "cpu", name
        described[name] = {
            "dtype": DTYPES[tensor.dtype],
            "shape": list(tensor.shape),
            "data_offsets": [place, place + tensor.nbytes],
        }
        place += tensor.nbytes
    text = json.dumps(described, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)  # so that tensors begin at multiples of eight bytes
    return memoryview(len(text).to_bytes(8, "little") + text)


def _bytes_of(tensor: Tensor) -> memoryview:
    return tensor.reshape(-1).view(torch.uint8).numpy().data


def _write(file: BinaryIO, chunk: memoryview) -> None:
    while len(chunk):  # the system may take less than it is given
        chunk = chunk[file.write(chunk) :]


def total_bytes(tensors: Iterable[Tensor]) -> int:
    """Bytes of all values."""
    return sum(tensor.nbytes for tensor in tensors)
