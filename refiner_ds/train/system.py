"""What a node does beside training, sampled at each reading: processor, memory, disk, network, and each rank's GPU."""

import contextlib
import time
from pathlib import Path

import psutil
import torch

GIGA, MEGA = 1e9, 1e6


class Sampler:
    """Samples the GPU of one rank and, on the first rank of a node, the node."""

    def __init__(self, device: torch.device, local_rank: int, folder: Path) -> None:
        """folder: whose disk is looked at."""
        self._device, self._local_rank, self._folder = device, local_rank, folder
        self._at, self._traffic = time.monotonic(), psutil.net_io_counters()
        psutil.cpu_percent()  # the first is since nothing

    def take(self) -> dict[str, float]:
        """Figures by name, rates since the last sample; what a system or a driver does not tell is left out.

        - cpu: share of all cores, 0..1; memory_gb: 10^9 bytes in use; disk_free_gb: left for the run's folder;
        - sent_mb_s, received_mb_s: 10^6 bytes per second over all interfaces;
        - gpuN, gpuN_memory_gb, gpuN_watts: share of the time that the GPU of local rank N computed, its memory in use
          by anybody, its power.
        """
        return {**(self._of_node() if self._local_rank == 0 else {}), **self._of_gpu()}

    def _of_node(self) -> dict[str, float]:
        now, traffic, before = time.monotonic(), psutil.net_io_counters(), self._traffic
        figures = {"cpu": psutil.cpu_percent() / 100, "memory_gb": psutil.virtual_memory().used / GIGA}
        with contextlib.suppress(OSError):
            figures["disk_free_gb"] = psutil.disk_usage(str(self._folder)).free / GIGA
        if traffic and before:
            seconds = max(now - self._at, 1e-3)
            figures["sent_mb_s"] = (traffic.bytes_sent - before.bytes_sent) / seconds / MEGA
            figures["received_mb_s"] = (traffic.bytes_recv - before.bytes_recv) / seconds / MEGA
        self._at, self._traffic = now, traffic
        return figures

    def _of_gpu(self) -> dict[str, float]:
        """Of this rank's own device alone: to ask another one would take memory on it."""
        if self._device.type != "cuda":
            return {}
        name, figures = f"gpu{self._local_rank}", {}
        with contextlib.suppress(Exception):  # NVML has errors of its own, and none may end a training
            free, total = torch.cuda.mem_get_info(self._device)
            figures[f"{name}_memory_gb"] = (total - free) / GIGA
            figures[name] = torch.cuda.utilization(self._device) / 100
            figures[f"{name}_watts"] = torch.cuda.power_draw(self._device) / 1000
        return figures
