"""Bytes of checkpoints. Light, as doctor asks too."""

import math

MASTER_BYTES = 4
AVERAGE_BYTES = 4
ADAMW_BYTES = 8


def checkpoint_bytes(trained: int, has_average: bool = False, moment_bytes: int = ADAMW_BYTES) -> int:
    """Bytes of a checkpoint, of all ranks together: it holds what is trained, and nothing of what is frozen.

    The fp32 masters, the optimizer's state, and the moving average if one is kept: the weights in the network's
    precision are made of the masters. Sharding changes who writes them and not how much. Names and shapes, some
    kilobytes, are left out. Of a shard it is what one rank copies to its host before it writes.

    Args:
        trained: number of trained weights; with low-rank updates only those and conv_in.
        moment_bytes: of the optimizer's state for each weight.
    """
    return trained * (MASTER_BYTES + moment_bytes + (AVERAGE_BYTES if has_average else 0))


def checkpoints_to_come(
    limit: int | None, steps: int | None, interval: int, keep_best: int = 0, keep_every: int = 0
) -> int | None:
    """How many checkpoints lie on the disk at most; None where all of an unknown number are kept.

    One is always written at the end, and a new one is complete before the oldest goes.

    Args:
        limit: of the newest; the others only where they are among the best ones, or of a step that is kept for ever.
    """
    written = None if steps is None else (math.ceil(steps / interval) if interval else 1)
    if limit is None:
        return written
    if keep_every and steps is None:
        return None
    for_ever = (steps or 0) // math.lcm(interval or 1, keep_every) if keep_every else 0
    most = limit + 1 + keep_best + for_ever
    return most if written is None else min(most, written + keep_best)  # a validation among the best saves one
