"""What a node does beside training, sampled at each reading: processor, memory, disk, network and GPUs."""

import time
from pathlib import Path

import psutil
import torch

GIGA, MEGA = 1e9, 1e6


class NodeSampler:
    """Samples this node. One rank of each node has one, and takes a sample now and then."""

    def __init__(self, folder: Path) -> None:
        """folder: whose disk is looked at."""
        self._folder = folder
        self._at = time.monotonic()
        self._traffic = psutil.net_io_counters()
        psutil.cpu_percent()  # the first is since nothing

    def take(self) -> dict[str, float]:
        """Figures by name, rates since the last sample.

        - cpu: share of all cores, 0..1; memory_gb: 10^9 bytes in use; disk_free_gb: left for the run's folder;
        - sent_mb_s, received_mb_s: 10^6 bytes per second over all interfaces;
        - gpuN, gpuN_memory_gb, gpuN_watts: share of the time that GPU N computed, its memory in use, its power; what
          the driver does not tell is left out.
        """
        now, traffic = time.monotonic(), psutil.net_io_counters()
        seconds = max(now - self._at, 1e-3)
        figures = {
            "cpu": psutil.cpu_percent() / 100,
            "memory_gb": psutil.virtual_memory().used / GIGA,
            "disk_free_gb": psutil.disk_usage(str(self._folder)).free / GIGA,
            "sent_mb_s": (traffic.bytes_sent - self._traffic.bytes_sent) / seconds / MEGA,
            "received_mb_s": (traffic.bytes_recv - self._traffic.bytes_recv) / seconds / MEGA,
        }
        self._at, self._traffic = now, traffic
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        return figures | {name: value for number in range(count) for name, value in _of_gpu(number).items()}


def _of_gpu(number: int) -> dict[str, float]:
    free, total = torch.cuda.mem_get_info(number)
    figures = {f"gpu{number}_memory_gb": (total - free) / GIGA}
    try:
        figures[f"gpu{number}"] = torch.cuda.utilization(number) / 100
        figures[f"gpu{number}_watts"] = torch.cuda.power_draw(number) / 1000
    except (ImportError, RuntimeError):  # NVML is not there, or knows nothing of this device
        pass
    return figures
