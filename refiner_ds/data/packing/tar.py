"""The bytes of a packed sample: three pictures and a card in plain ustar, the same for the same content at any time."""

import json
import tarfile
from collections.abc import Sequence

import numpy as np

BLOCK = 512
"""Tar pads every member to this many bytes and puts a header of as many before it."""
END = bytes(2 * BLOCK)
"""What ends a tar."""


def header_of(name: str, size: int) -> bytes:
    """The header of a member: fixed owner, mode and time."""
    header = tarfile.TarInfo(name)
    header.size, header.mtime, header.mode = size, 0, 0o644
    return header.tobuf(tarfile.USTAR_FORMAT)


def padding_of(size: int) -> bytes:
    """The zeros after a member of `size` bytes."""
    return bytes(-size % BLOCK)


def member_bytes(size: np.ndarray) -> np.ndarray:
    """Bytes that members of `size` bytes take in a tar, with header and padding."""
    return BLOCK + (size + BLOCK - 1) // BLOCK * BLOCK


def place_members(records: np.ndarray, card_sizes: Sequence[int]) -> int:
    """Sets the offsets of the records of one shard, whose samples lie one after the other; returns the tar's bytes."""
    members = member_bytes(records["size"].astype(np.uint64))
    cards = member_bytes(np.array(card_sizes, np.uint64))
    ends = np.cumsum(members.sum(axis=1) + cards)
    starts = ends - members.sum(axis=1) - cards
    before = np.cumsum(members, axis=1) - members
    records["offset"] = starts[:, None] + before + np.uint64(BLOCK)
    return int(ends[-1]) + len(END)


def card_of(record: np.void, line: str, dataset: str) -> bytes:
    """The content of KEY.json, from a sample's record, its line of sources.jsonl and the name of its dataset."""
    key, width, height = record["key"].decode(), int(record["width"]), int(record["height"])
    card = {"key": key, "width": width, "height": height, "dataset": dataset, **json.loads(line)}
    return json.dumps(card, sort_keys=True).encode()
