"""Bytes that ranks exchange for one update of the weights."""

from dataclasses import dataclass

from refiner_ds.config.deepspeed import adds_up_whole


@dataclass(frozen=True)
class Traffic:
    """Of one optimizer step: bytes of gradients that each rank gives to be reduced, of weights that are gathered, and
    what it sends for both.

    A ring sends 2 (N - 1) / N bytes for each that is all-reduced over N ranks, and (N - 1) / N for each that is
    reduced and scattered, or gathered (Patarasuk and Yuan 2009, section 3); as many come in.
    """

    reduced: int
    gathered: int
    sent: int

    def seconds(self, gigabits: float) -> float:
        """What sending takes at least in a ring whose slowest link lets so many gigabits per second pass."""
        return 8 * self.sent / (gigabits * 1e9)


def traffic(
    weights: int, ranks: int, stage: int, accumulation: int, weight_bytes: int, offloads: bool = False
) -> Traffic:
    """ZeRO-2 all-reduces its buckets, in the network's precision, at every micro-batch. ZeRO-1 reduces once per update,
    and without offload, where that is ours, scatters what it reduces. Both gather the updated weights once. Stages 0
    and 3 as in the paper (arXiv:1910.02054, section 7): stage 0 reduces once and gathers nothing, stage 3 reduces at
    every micro-batch and gathers the weights on both ways of each.
    """
    if ranks == 1:
        return Traffic(0, 0, 0)
    reductions = accumulation if stage >= 2 else 1
    gatherings = {0: 0, 1: 1, 2: 1, 3: 2 * accumulation}[stage]
    reduced, gathered = reductions * weight_bytes * weights, gatherings * weight_bytes * weights
    passes = 1 if adds_up_whole(stage, ranks, offloads) else 2
    return Traffic(reduced, gathered, (passes * reduced + gathered) * (ranks - 1) // ranks)
