"""Which checkpoints may go: pure, on step numbers."""

from collections.abc import Iterable


def surplus(steps: Iterable[int], total_limit: int | None) -> list[int]:
    """Steps beyond the newest `total_limit`, oldest first; none without a limit. The newest always stays."""
    if total_limit is None:
        return []
    return sorted(steps)[: -max(1, total_limit)]
