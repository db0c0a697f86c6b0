"""Randomness keyed by meaning: the same (seed, purpose, numbers) gives the same draw on any rank, worker or machine."""

import hashlib

import numpy as np


def key_of(seed: int, purpose: str, *numbers: int) -> int:
    """A 63-bit key from the run's seed, what the draw is for, and e.g. the global position of a sample.

    Stable across processes, platforms and Python versions (BLAKE2b of the decimal text), so that a resumed run, or one
    on another number of ranks, draws what the first one drew.
    """
    text = ":".join([str(seed), purpose, *map(str, numbers)])
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big") >> 1


def generator_of(seed: int, purpose: str, *numbers: int) -> np.random.Generator:
    """A counter-based generator (Philox 4x64, Salmon et al. 2011) started at `key_of(...)`."""
    return np.random.Generator(np.random.Philox(key=key_of(seed, purpose, *numbers)))
