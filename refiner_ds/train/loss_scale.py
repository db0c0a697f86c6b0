"""The scale of the fp16 loss as DeepSpeed follows it: what a checkpoint keeps of it, and when it can go no lower."""

from typing import Any

KEPT = ("cur_scale", "cur_iter", "last_overflow_iter", "cur_hysteresis")
"""What DeepSpeed's dynamic loss scaler goes on from."""


class LossScale:
    """The loss scale of DeepSpeed's optimizer `zero`; one that never changes in other precisions than fp16."""

    def __init__(self, zero: Any) -> None:
        self._scaler = getattr(zero, "loss_scaler", None)
        self.adapts = bool(getattr(self._scaler, "dynamic", False))
        """Whether it is lowered after an update that overflowed, so that such an update is nothing to worry about."""
        if self._scaler is not None and self.adapts:
            self._scaler.raise_error_at_min_scale = False  # it would end the rank with a traceback; see `is_lowest`

    def state(self) -> dict[str, Any]:
        """Plain values to go on from; none where it never changes."""
        return {name: getattr(self._scaler, name) for name in KEPT if self.adapts}

    def restore(self, saved: dict[str, Any]) -> None:
        """Goes on from these values; of a checkpoint of another precision there are none, and it starts anew."""
        for name, value in saved.items() if self.adapts else ():
            setattr(self._scaler, name, value)

    @property
    def is_lowest(self) -> bool:
        """Whether the next overflow could not lower it any more."""
        scaler = self._scaler
        if scaler is None or not self.adapts or scaler.cur_scale != scaler.min_scale:
            return False
        return scaler.delayed_shift == 1 or scaler.cur_hysteresis == 1
