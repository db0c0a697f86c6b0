"""Which checkpoints may go: pure, on step numbers."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Keep:
    """What is kept.

    Attributes:
        last: so many that were written last; all where not given.
        best: so many with the best figures.
        every: those of whole multiples of so many steps, for ever; none where zero.
        largest_is_best: whether a larger figure is better.
    """

    last: int | None = None
    best: int = 0
    every: int = 0
    largest_is_best: bool = True


def best_of(steps: Collection[int], figures: Mapping[int, float], count: int, largest_is_best: bool) -> list[int]:
    """The `count` steps with the best figures, best first; of equal ones the later. NaN is no figure."""
    judged = [step for step in steps if step in figures and figures[step] == figures[step]]
    sign = 1 if largest_is_best else -1
    return sorted(judged, key=lambda step: (sign * figures[step], step), reverse=True)[:count]


def surplus(
    steps: Sequence[int], keep: Keep, figures: Mapping[int, float] | None = None, in_use: Collection[int] = ()
) -> list[int]:
    """The steps whose checkpoints go. The one written last always stays, and so do the best ones.

    Args:
        steps: in the order in which they were written, which is not that of their numbers once a run has been continued
            from an older checkpoint.
        figures: by step, as far as it was validated.
        in_use: read by somebody, so they stay for now.
    """
    if keep.last is None:
        return []
    stay = {*steps[-max(1, keep.last) :], *in_use}
    stay.update(best_of(steps, figures or {}, keep.best, keep.largest_is_best))
    stay.update(step for step in steps if keep.every and step % keep.every == 0)
    return [step for step in steps if step not in stay]
