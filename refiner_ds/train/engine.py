"""The ZeRO engine: the only importer of deepspeed. Process group, precision, sharded AdamW, its shards on disk."""

import logging
import os
import warnings
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from refiner_ds.config.deepspeed import Resolved
from refiner_ds.errors import UserError
from refiner_ds.world import World

# deepspeed picks its accelerator on import, and warns where it has to guess
os.environ.setdefault("DS_ACCELERATOR", "cuda" if torch.cuda.is_available() else "cpu")

import deepspeed
from deepspeed.comm.torch import TorchBackend
from deepspeed.utils import (
    safe_set_full_fp32_param,
)

DTYPES = {"no": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(frozen=True)
class AdamW:
    """Hyperparameters of AdamW (Loshchilov and Hutter 2019) other than the learning rate."""

    betas: tuple[float, float] = (0.9, 0.999)
    weight_decay: float = 1e-2
    epsilon: float = 1e-8


def start_process_group(world: World, timeout: timedelta) -> torch.device:
    """Joins the job's ranks and returns this rank's device: its GPU, or the CPU without one. All ranks must call."""
    deepspeed.utils.logger.setLevel(logging.ERROR)
    if world.size == 1:
        # without these deepspeed looks for MPI; port 0 lets the system choose one
        alone = {"RANK": "0", "WORLD_SIZE": "1", "LOCAL_RANK": "0", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "0"}
        for name, value in alone.items():
            os.environ.setdefault(name, value)
    # a CPU extension for inference only, whose compilation takes a minute
    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    # ZeRO reduces in a group of its own, which would keep torch's default timeout of up to 30 minutes
    TorchBackend.new_group = lambda self, ranks: torch.distributed.new_group(ranks, timeout=timeout)
    warnings.filterwarnings("ignore", ".*all_gather_into_tensor.*deprecated", FutureWarning)  # deepspeed's to mend
    cuda = torch.cuda.is_available()
    if cuda and world.local_rank >= torch.cuda.device_count():
        raise UserError(
            f"this node has {torch.cuda.device_count()} GPUs and is given {world.local_size} ranks, but a rank needs "
            "one of its own; start as many ranks as there are GPUs."
        )
    device = torch.device("cuda", world.local_rank) if cuda else torch.device("cpu")
    if cuda:
        torch.cuda.set_device(device)
    elif "OMP_NUM_THREADS" not in os.environ:  # ranks that each take all cores are several times slower
        torch.set_num_threads(max(1, len(os.sched_getaffinity(0)) // world.local_size))
    deepspeed.init_distributed("nccl" if cuda else "gloo", timeout=timeout, verbose=False)
    return device


class Engine:
    """A network under ZeRO, with AdamW sharded over the ranks. All ranks must construct it, with equal weights."""

    def __init__(self, network: nn.Module, config: Resolved, adamw: AdamW, device: torch.device) -> None:
        self.device = device
        self.dtype = DTYPES[config.precision]
        self._clipping = float(config.json["gradient_clipping"])
        self._adamw = adamw
        exact = {name: parameter.detach().clone() for name, parameter in network.named_parameters()}  # on the CPU
        network.to(device).train()
        optimizer = torch.optim.AdamW(
            network.parameters(),
            lr=0.0,
            betas=adamw.betas,
            weight_decay=adamw.weight_decay,
            eps=adamw.epsilon,
            fused=device.type == "cuda" or None,
        )
        self._engine, self._optimizer, _, _ = deepspeed.initialize(
            model=network, optimizer=optimizer, config=config.json
        )
        self._engine._copy_recovery_script = lambda folder: (
            None
        )  # scripts into the run's folder; `export` does their work
        # deepspeed casts the network first, so its fp32 masters start as rounded weights; give them their exact values
        for name, parameter in self._engine.module.named_parameters():
            safe_set_full_fp32_param(parameter, exact[name].to(device))

    @property
    def network(self) -> Any:
        """What to call in the forward pass of training: the wrapped network."""
        return self._engine

    def backward(self, loss: Tensor) -> None:
        """Adds the gradients of one micro-batch, divided by the accumulation; ZeRO-2 reduces them over ranks."""
        self._engine.backward(loss)

    def step(self) -> None:
        """To be called after every micro-batch; updates the weights on each that completes the accumulation."""
        self._engine.step()

    @property
    def skipped_steps(self) -> int:
        """Updates that were skipped since the run began, resumed or not, because gradients were not finite."""
        return int(self._engine.skipped_steps)

    @property
    def gradient_norm(self) -> Tensor:
        """Norm of all gradients of the latest update before clipping, fp32 scalar."""
        return torch.as_tensor(self._engine.get_global_grad_norm(), dtype=torch.float32, device=self.device)

    @property
    def loss_scale(self) -> float:
        """Current scale of the fp16 loss; 1 in other precisions."""
        return float(getattr(self._optimizer, "cur_scale", 1.0)) if self.dtype == torch.float16 else 1.0

    def set_learning_rate(self, rate: float) -> None:
        """The learning rate of the next update."""
        for group in self._optimizer.param_groups:
            group["lr"] = rate

    def save(self, folder: Path, tag: str) -> None:
        """Writes weights and this rank's shard of the optimizer into folder/tag. All ranks must call."""
        self._engine.save_checkpoint(str(folder), tag=tag, save_latest=False)

    def load(self, folder: Path, tag: str) -> None:
        """Reads what `save` wrote for the same number of ranks. All ranks must call.

        Clipping and AdamW's hyperparameters keep their present values, not those that were saved.
        """
        path, _ = self._engine.load_checkpoint(str(folder), tag=tag)
        if path is None:  # deepspeed only warns
            raise RuntimeError(f"{folder / tag} cannot be read on this rank; is the folder shared by all nodes?")
        self._optimizer.clip_grad = self._clipping
        for group in self._optimizer.param_groups:
            group.update(betas=self._adamw.betas, weight_decay=self._adamw.weight_decay, eps=self._adamw.epsilon)

    def mean_over_ranks(self, values: Tensor) -> Tensor:
        """Elementwise mean of `values` over all ranks. All ranks must call."""
        torch.distributed.all_reduce(values)
        return values / torch.distributed.get_world_size()

    def sum_over_ranks(self, values: Tensor) -> Tensor:
        """Elementwise sum of `values` over all ranks. All ranks must call."""
        torch.distributed.all_reduce(values)
        return values

    def require_agreement(self, what: str) -> None:
        """Ends every rank where they do not all say the same, e.g. because nodes see different folders. All must call.

        Raises:
            UserError: on all ranks; tells what rank 0 and the first rank that differs say.
        """
        said: list[Any] = [None] * torch.distributed.get_world_size()
        torch.distributed.all_gather_object(said, what)
        for rank, other in enumerate(said):
            if other != said[0]:
                raise UserError(
                    f"the ranks do not agree on what to train: rank 0 has {said[0]} and rank {rank} has {other}; "
                    "put shards, base and output folder where all nodes see them, and start all with one command."
                )

    def barrier(self) -> None:
        """Waits for all ranks. All ranks must call."""
        torch.distributed.barrier()

    def close(self) -> None:
        """Leaves the process group. All ranks must call."""
        self._engine.destroy()
        torch.distributed.destroy_process_group()
