"""A stopwatch for what a device computes: the clock on a CPU, events in its stream on a GPU."""

import time

import torch


class Stopwatch:
    """Times what runs within `with stopwatch:`, over and over; nothing waits for the device there.

    On a GPU it is the time from when the stream comes to the first of it until the last is done, so what the host needs
    to launch it counts where the GPU stands idle meanwhile.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._began = 0.0
        self._seconds: list[float] = []
        self._events: list[torch.cuda.Event] = []

    def __enter__(self) -> None:
        self._began = time.perf_counter()
        self._record()

    def __exit__(self, *_: object) -> None:
        self._record()
        self._seconds.append(time.perf_counter() - self._began)

    def take(self) -> float | None:
        """Mean seconds of what was timed since it was last taken, None where nothing was; waits for the last of it."""
        seconds = self._seconds
        if self._events:
            self._events[-1].synchronize()
            pairs = zip(self._events[::2], self._events[1::2], strict=True)
            seconds = [first.elapsed_time(last) / 1000 for first, last in pairs]
        self._seconds, self._events = [], []
        return sum(seconds) / len(seconds) if seconds else None

    def _record(self) -> None:
        if self._device.type == "cuda":
            event = torch.cuda.Event(enable_timing=True)
            event.record(torch.cuda.current_stream(self._device))
            self._events.append(event)
