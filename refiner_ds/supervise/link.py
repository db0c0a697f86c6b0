"""The rank's end of the line to its warden, its parent process."""

import ctypes
import os
import signal
import socket
import sys
from pathlib import Path

from refiner_ds.supervise.wire import Wire

LINK, HUB = "REFINER_DS_WARDEN", "REFINER_DS_HUB"
"""Environment variables: the rank's end as DESCRIPTOR:PARENT, and PORT:TOKEN of the hub in rank 0's warden."""
_PR_SET_PDEATHSIG = 1


def end_with(parent: int) -> None:
    """Lets the system kill this process as soon as its parent is gone, on Linux."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:
            os.kill(os.getpid(), signal.SIGKILL)


class Link:
    """What a rank tells its warden. Without a warden, as under a plain `python`, nothing comes of it."""

    def __init__(self) -> None:
        descriptor, _, parent = os.environ.get(LINK, "").partition(":")
        self._wire = Wire(socket.socket(fileno=int(descriptor))) if descriptor else None
        if self._wire:
            end_with(int(parent))  # whatever ends the warden ends the rank

    @property
    def hub(self) -> str:
        """PORT:TOKEN of the hub on rank 0; empty elsewhere."""
        return os.environ.get(HUB, "")

    def join(self, hub: str, host: str, limit_seconds: float) -> None:
        """Lets the warden join the circle.

        Args:
            hub, host: of rank 0.
            limit_seconds: a host that is silent for so long is taken to be gone.
        """
        port, _, token = hub.partition(":")
        if self._wire and port:
            self._wire.send(join={"port": int(port), "token": token, "host": host, "limit_seconds": limit_seconds})

    def keep_log(self, folder: Path) -> None:
        """Lets the warden write the rank's output into a run's folder."""
        if self._wire:
            self._wire.send(log=str(folder))

    def has_told(self) -> None:
        """Says that the rank itself has told in a sentence why it ends."""
        if self._wire:
            self._wire.send(told=True)

    def lost_peer(self) -> None:
        """Says that what will end this rank is the loss of another."""
        if self._wire:
            self._wire.send(consequence=True)
