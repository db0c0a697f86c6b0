"""The most memory that a rank has had since it began."""

from pathlib import Path

import torch


def high_water(device: torch.device) -> int:
    """Bytes at most: what torch allocated on a GPU, its cache aside; on a CPU the resident pages of this process.

    Loading processes of the data are not in it. Nothing waits for the device.
    """
    if device.type == "cuda":
        return int(torch.cuda.max_memory_allocated(device))
    status = Path("/proc/self/status").read_text(encoding="ascii", errors="replace")
    return int(status.partition("VmHWM:")[2].split()[0]) * 1024  # kB
