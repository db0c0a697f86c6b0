"""Which checkpoints may go: pure, on step numbers."""

from collections.abc import Sequence


def surplus(steps: Sequence[int], total_limit: int | None) -> list[int]:
    """All but the `total_limit` written last; none without a limit. The one written last always stays.

    Args:
        steps: in the order in which they were written, which is not that of their numbers once a run has been continued
            from an older checkpoint.
    """
    return [] if total_limit is None else list(steps[: -max(1, total_limit)])
