"""One rank of a real all-reduce: `python -m refiner_ds.doctor.allreduce BACKEND BYTES SECONDS`, started by the agents.

Ranks are told their place by RANK, WORLD_SIZE, LOCAL_RANK, MASTER_ADDR and MASTER_PORT, as under a launcher.
"""

import json
import os
import sys
import time
from datetime import timedelta

import torch

ROUNDS = 5


def measure(backend: str, size: int, device: torch.device) -> float:
    """Seconds of one all-reduce of `size` bytes of fp32, the median of some; checks the sums."""
    world = torch.distributed.get_world_size()
    seconds = []
    for _ in range(ROUNDS + 1):
        tensor = torch.ones(size // 4, device=device)
        torch.distributed.barrier()
        started = time.perf_counter()
        torch.distributed.all_reduce(tensor)
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        seconds.append(time.perf_counter() - started)
        if not bool((tensor == world).all()):
            raise RuntimeError(
                f"the sum over {world} ranks by {backend} is {tensor.min().item()}..{tensor.max().item()}"
            )
    return sorted(seconds[1:])[ROUNDS // 2]


def main() -> None:
    """Meets the others, measures, and prints the seconds on rank 0."""
    backend, size, limit = sys.argv[1], int(sys.argv[2]), float(sys.argv[3])
    device = torch.device("cpu")
    if backend == "nccl":
        device = torch.device("cuda", int(os.environ["LOCAL_RANK"]))
        torch.cuda.set_device(device)
    torch.distributed.init_process_group(backend, timeout=timedelta(seconds=limit))
    try:
        seconds = measure(backend, size, device)
        if torch.distributed.get_rank() == 0:
            print(json.dumps({"seconds": seconds}), flush=True)
    finally:
        torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main()
