"""The side channel: what ranks tell each other beside training, on the CPU, without anybody waiting for a GPU."""

from datetime import timedelta
from typing import Any

import torch
from torch import distributed


class SideChannel:
    """A gloo group of all ranks. All ranks must construct it, and call its methods alike."""

    def __init__(self, timeout: timedelta) -> None:
        self._group = distributed.new_group(backend="gloo", timeout=timeout)
        self._beat: tuple[torch.Tensor, Any] | None = None

    def gathered(self, item: Any) -> list[Any]:
        """What each rank gives, by rank; waits for all of them. All ranks must call."""
        given: list[Any] = [None] * distributed.get_world_size(self._group)
        distributed.all_gather_object(given, item, group=self._group)
        return given

    def beat(self, stops: bool, has_written: bool) -> tuple[bool, bool]:
        """Sends two signs on their way and returns what came of those of the beat before. All ranks must call.

        The answer has had a micro-step's time to come, so that nobody waits for it; it is the same on all ranks.

        Returns:
            whether any rank stops, and whether all have written.
        """
        answer = False, False
        if self._beat:
            values, work = self._beat
            work.wait()
            any_stops, any_has_not_written = values.tolist()
            answer = bool(any_stops), not any_has_not_written
        values = torch.tensor([stops, not has_written], dtype=torch.uint8)
        self._beat = values, distributed.all_reduce(values, distributed.ReduceOp.MAX, self._group, async_op=True)
        return answer

    def close(self) -> None:
        """Takes the last answer, which would otherwise still be on its way at the end."""
        if self._beat:
            self._beat[1].wait()
            self._beat = None
