"""Files of tensors: the library of the format reads what was written, and the checksum is that of the bytes."""

import json
from pathlib import Path

import google_crc32c
import pytest
import torch
from safetensors import safe_open

from refiner_ds.checkpoint import tensor_file
from refiner_ds.checkpoint.checksum import crc_of
from refiner_ds.checkpoint.tensor_file import DTYPES, write_tensors

SHAPES = ((3, 5), (), (0,), (2, 0, 4), (1,), (7,))


def tensors_of(dtype: torch.dtype) -> dict[str, torch.Tensor]:
    """One of each shape."""
    random = torch.Generator().manual_seed(0)
    values = [torch.randint(0, 100, shape, generator=random) for shape in SHAPES]
    return {
        f"tensor{number}": (value % 2 if dtype == torch.bool else value).to(dtype)
        for number, value in enumerate(values)
    }


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_the_library_of_the_format_reads_every_dtype_and_shape(tmp_path, dtype):
    tensors = tensors_of(dtype)
    write_tensors(tmp_path / "t.safetensors", tensors, {"told": "ü", "more": json.dumps({"a": [1]})})
    with safe_open(tmp_path / "t.safetensors", framework="pt") as file:
        assert set(file.keys()) == set(tensors)
        assert file.metadata() == {"told": "ü", "more": '{"a": [1]}'}
        for name, tensor in tensors.items():
            found = file.get_tensor(name)
            assert found.dtype == dtype and found.shape == tensor.shape and torch.equal(found, tensor)


def test_a_file_of_all_dtypes_and_a_file_of_nothing_are_read(tmp_path):
    tensors = {f"{dtype}.{name}": value for dtype in DTYPES for name, value in tensors_of(dtype).items()}
    write_tensors(tmp_path / "t.safetensors", tensors, {})
    with safe_open(tmp_path / "t.safetensors", framework="pt") as file:
        assert all(torch.equal(file.get_tensor(name), tensor) for name, tensor in tensors.items())
    write_tensors(tmp_path / "empty.safetensors", {}, {})
    with safe_open(tmp_path / "empty.safetensors", framework="pt") as file:
        assert list(file.keys()) == []


@pytest.mark.parametrize("chunk", [1, 7, 64, 1 << 20])
def test_size_and_checksum_are_those_of_the_bytes_however_they_are_cut(tmp_path, monkeypatch, chunk):
    monkeypatch.setattr(tensor_file, "CHUNK", chunk)
    path = tmp_path / "t.safetensors"
    size, crc = write_tensors(path, tensors_of(torch.float32), {"a": "b"})
    content = path.read_bytes()
    assert size == len(content) and crc == google_crc32c.value(content) == crc_of(path)


def test_parts_of_a_shard_are_written_as_they_lie_in_it(tmp_path):
    shard = torch.arange(20, dtype=torch.float32)
    write_tensors(tmp_path / "t.safetensors", {"part": shard.narrow(0, 3, 5)}, {})
    with safe_open(tmp_path / "t.safetensors", framework="pt") as file:
        assert file.get_tensor("part").tolist() == [3, 4, 5, 6, 7]


@pytest.mark.parametrize("name", ["a", "ab", "abcdefg"])
def test_tensors_begin_at_multiples_of_eight_bytes(tmp_path, name):
    write_tensors(tmp_path / "t.safetensors", {name: torch.zeros(2)}, {})
    content = (tmp_path / "t.safetensors").read_bytes()
    assert int.from_bytes(content[:8], "little") % 8 == 0


def test_one_changed_bit_is_another_checksum(tmp_path):
    path = tmp_path / "t.safetensors"
    _, crc = write_tensors(path, tensors_of(torch.bfloat16), {})
    content = bytearray(path.read_bytes())
    for place in (0, len(content) // 2, len(content) - 1):
        changed = bytearray(content)
        changed[place] ^= 4
        path.write_bytes(changed)
        assert crc_of(path) != crc


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs Linux's /dev/full")
def test_a_full_disk_is_an_error_of_the_system():
    with pytest.raises(OSError, match="No space left on device"):
        write_tensors(Path("/dev/full"), tensors_of(torch.float32), {})
