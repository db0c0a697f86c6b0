"""Which samples a report shows: the worst, the best, and some of what lies between."""

from collections.abc import Sequence

from refiner_ds.evaluate.repairs import Judged

WORST, BEST, BETWEEN = 8, 8, 8

Cases = dict[str, list[Judged]]
"""Samples by heading, each sample once."""


def cases(judged: Sequence[Judged]) -> Cases:
    """By the gain in PSNR: worst first, then best first, then evenly between them; a small split is shown whole."""
    ranked = sorted(judged, key=lambda each: (each.gain, each.position))
    worst = ranked[: min(WORST, -(-len(ranked) // 2))]
    best = ranked[len(worst) :][::-1][:BEST]
    rest = ranked[len(worst) : len(ranked) - len(best)]
    count = min(BETWEEN, len(rest))
    between = [rest[(2 * number + 1) * len(rest) // (2 * count)] for number in range(count)]
    found = {"Worst first": worst, "Best first": best, "Between": between}
    return {name: each for name, each in found.items() if each}
