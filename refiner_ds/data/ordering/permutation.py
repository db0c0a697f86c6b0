"""Permutations keyed by meaning, the same on every machine and with every numpy."""

import numpy as np

from refiner_ds.chance import generator_of


def shuffled(count: int, seed: int, purpose: str, *numbers: int) -> np.ndarray:
    """0..count-1 in an order drawn for (seed, purpose, numbers); (count,) int32.

    Sorts random keys that end in the numbers themselves. It rests on Philox's bits alone, which are fixed for good;
    how a numpy version shuffles is not, and a run may be continued with another.
    """
    bits = np.uint64(max(1, (count - 1).bit_length()))
    keys = np.asarray(generator_of(seed, purpose, *numbers).bit_generator.random_raw(count), np.uint64)
    keys >>= bits
    keys <<= bits
    keys |= np.arange(count, dtype=np.uint64)
    keys.sort()
    keys &= (np.uint64(1) << bits) - np.uint64(1)
    return keys.astype(np.int32)
