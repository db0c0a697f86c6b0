"""The ZeRO engine: the only importer of deepspeed. Process group, precision, sharded optimizer, its shards on disk."""

import logging
import os
import sys
import warnings
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from datetime import timedelta
from typing import Any

import torch
from torch import Tensor, nn

from refiner_ds.checkpoint.snapshot import Snapshot
from refiner_ds.checkpoint.state import SavedState
from refiner_ds.config.deepspeed import Resolved
from refiner_ds.errors import UserError
from refiner_ds.train.compiled import compile_network, eagerly
from refiner_ds.train.ema import Ema
from refiner_ds.train.gradients import WholeGradients
from refiner_ds.train.interface import VARIABLE, interface_towards
from refiner_ds.train.meeting import gpu_of, no_meeting, share_mistakes
from refiner_ds.train.optimizers import make_optimizer
from refiner_ds.train.precision import DTYPES
from refiner_ds.train.shard_state import ShardState, masters_of
from refiner_ds.train.zero_update import SparedUpdate
from refiner_ds.world import World

# deepspeed picks its accelerator on import, and warns where it has to guess
os.environ.setdefault("DS_ACCELERATOR", "cuda" if torch.cuda.is_available() else "cpu")

# its autotuner, which nobody calls, imports mlflow where it can: seconds and a hundred megabytes on every rank
sys.modules.setdefault("mlflow", None)  # type: ignore[arg-type]
import deepspeed  # noqa: E402
from deepspeed.comm.torch import TorchBackend  # noqa: E402
from deepspeed.utils import safe_set_full_fp32_param  # noqa: E402

if sys.modules["mlflow"] is None:
    del sys.modules["mlflow"]

COUNTED = ("global_steps", "global_samples", "skipped_steps")
"""What DeepSpeed's engine counts over the whole run."""


def start_process_group(world: World, timeout: timedelta, mistake: UserError | None = None) -> torch.device:
    """Joins the job's ranks and returns this rank's device: its GPU, or the CPU without one. All ranks must call.

    Args:
        mistake: what this rank has found to be wrong before, which ends all of them.

    Raises:
        UserError: on all ranks: one has made a mistake, or there are more of them on its host than GPUs.
        Failure: the ranks cannot meet.
    """
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
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = _prepare(device, world)
    except UserError as error:
        mistake = mistake or error
    try:
        store = share_mistakes(world, mistake, timeout)
        deepspeed.init_distributed("gloo" if device.type == "cpu" else "nccl", timeout=timeout, verbose=False)
        del store  # rank 0's has served all until here
    except torch.distributed.DistError as error:
        raise no_meeting(world, timeout, error) from error
    return device


def _prepare(device: torch.device, world: World) -> torch.device:
    """This rank's own device of that type, its threads, and the interface on which gloo meets the others.

    Raises:
        UserError: it has no GPU of its own, or no interface is certain.
    """
    if world.spans_nodes and VARIABLE not in os.environ:  # the side channel needs it beside GPUs too
        os.environ[VARIABLE] = interface_towards(os.environ["MASTER_ADDR"])
    if device.type == "cuda":
        device = torch.device("cuda", gpu_of(world, torch.cuda.device_count()))
        torch.cuda.set_device(device)
    elif "OMP_NUM_THREADS" not in os.environ:  # ranks that each take all cores are several times slower
        torch.set_num_threads(max(1, len(os.sched_getaffinity(0)) // world.local_size))
    return device


def _for_deepspeed(config: Resolved) -> dict[str, Any]:
    """The JSON without the precision of the accumulation where we add up, for which DeepSpeed has other classes.

    Its throughput timer, which waits for the device twice in every micro-batch, is off unless the JSON names it.
    """
    kept = {"timers": {"throughput": {"enabled": False}}, **config.json}
    if config.adds_up_whole and "data_types" in kept:
        kept["data_types"] = {name: value for name, value in kept["data_types"].items() if name != "grad_accum_dtype"}
    return kept


class Engine:
    """A network under ZeRO, its optimizer sharded over the ranks. All ranks must construct it, with equal weights.

    Attributes:
        dtype: what the network computes in.
        num_trained: weights that are trained.
        compiles: the network is compiled, but within `eagerly`.
    """

    def __init__(
        self,
        network: nn.Module,
        config: Resolved,
        device: torch.device,
        ema_decay: float | None = None,
        compiles: bool = False,
    ) -> None:
        """Trains the parameters that require gradients; keeps their moving average if a decay is given.

        compiles: the network is compiled for training, once for each shape that it meets, which takes minutes.
        """
        self.device = device
        self.dtype = DTYPES[config.precision]
        trained = {name: parameter for name, parameter in network.named_parameters() if parameter.requires_grad}
        self.num_trained = sum(parameter.numel() for parameter in trained.values())
        exact = {name: parameter.detach().clone() for name, parameter in trained.items()}  # on the CPU
        network.to(device).train()
        optimizer = make_optimizer(config.optimizer, trained.values())
        self._engine, self._optimizer, _, _ = deepspeed.initialize(
            model=network, optimizer=optimizer, config=_for_deepspeed(config)
        )
        # deepspeed casts the network first, so its fp32 masters start as rounded weights; give them their exact values
        for name, parameter in trained.items():
            safe_set_full_fp32_param(parameter, exact[name].to(device))
        if not config.offloads:
            SparedUpdate(self._optimizer)
        self._ema = Ema(masters_of(self._optimizer), ema_decay) if ema_decay else None
        self._state = ShardState(network, self._optimizer, self._ema)
        self._accumulation_steps = config.accumulation_steps
        self._gradients = None
        if config.adds_up_whole:
            self._gradients = WholeGradients(self._optimizer, self._state.cut, DTYPES[config.accumulated_in])
        self.compiles = compiles
        if compiles:
            compile_network(network)
        self._before = self._counted()
        self._was_lowest = False

    @property
    def network(self) -> Any:
        """What to call in the forward pass of training; DeepSpeed's wrapper where it handles the gradients."""
        return self._engine.module if self._gradients else self._engine

    @property
    def wrapper(self) -> Any:
        """DeepSpeed's own engine, for what is measured against it."""
        return self._engine

    def eagerly(self) -> AbstractContextManager[None]:
        """Within, the network runs as it is written, compiled or not."""
        return eagerly() if self.compiles else nullcontext()

    def backward(self, loss: Tensor) -> None:
        """Adds the gradients of one micro-batch, divided by the accumulation.

        They stay on this rank until the last one, or where DeepSpeed handles them are reduced in each at stage 2.
        """
        if not self._gradients:
            self._engine.backward(loss)
            return
        if self._engine.micro_steps % self._accumulation_steps == 0:
            self._gradients.begin()
        self._optimizer.scale_if_loss(loss / self._accumulation_steps).backward()

    def step(self) -> None:
        """To be called after every micro-batch; updates the weights on each that completes the accumulation."""
        completes = self._engine.is_gradient_accumulation_boundary()
        if completes:
            if self._gradients:
                self._gradients.reduce()
            self._before, self._was_lowest = self._counted(), self._state.loss_scale.is_lowest
        self._engine.step()
        if self._ema and completes and self._engine.was_step_applied():
            self._ema.update()

    @property
    def was_applied(self) -> bool:
        """Whether the latest update changed the weights, as it does where all gradients of all ranks are finite.

        To be asked before the next micro-batch. The same on all ranks; DeepSpeed has read it already, so nobody waits.
        """
        return bool(self._engine.was_step_applied())

    @property
    def scale_adapts(self) -> bool:
        """Whether an update that was not applied lowers the loss scale, so that the next one may be: in fp16 mostly."""
        return self._state.loss_scale.adapts

    @property
    def scale_was_lowest(self) -> bool:
        """Whether the latest update found the loss scale where nothing can lower it any more."""
        return self._was_lowest

    def take_back(self) -> None:
        """Counters and loss scale as they were before the latest update, which was not applied."""
        counters, scale = self._before
        self._restore_counters(counters)
        self._state.loss_scale.restore(scale)

    def _counted(self) -> tuple[dict[str, Any], dict[str, Any]]:
        return {name: getattr(self._engine, name) for name in COUNTED}, self._state.loss_scale.state()

    def _restore_counters(self, counters: dict[str, Any]) -> None:
        for name in COUNTED:
            setattr(self._engine, name, counters[name])

    @contextmanager
    def averaged(self) -> Iterator[None]:
        """Within, the network has the averaged weights, if one is kept, and runs eagerly. All ranks must call.

        A rank that fails within leaves them so: taking them back is for all ranks together, and the run is over.
        """
        if self._ema:
            self._swap_average(self._ema)
        with self.eagerly():
            yield
        if self._ema:
            self._swap_average(self._ema)

    def _swap_average(self, ema: Ema) -> None:
        ema.swap()
        self._optimizer.update_lp_params()  # from the fp32 shards to the weights of all ranks

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

    def snapshot(self) -> Snapshot:
        """A copy of this rank's part of the training state on the host; to be taken between updates.

        The memory is used again by the next one.
        """
        return self._state.snapshot(self._counted()[0])

    def restore(self, saved: SavedState) -> None:
        """Takes over a training state, whatever number of ranks, precision and stage saved it. All ranks must call.

        Clipping, learning rate and the optimizer's settings keep their present values.

        Raises:
            UserError: what this rank needs is not in the folder that it sees.
        """
        self._state.restore(saved, torch.distributed.get_rank())
        self._restore_counters(saved.counters)

    def mean_over_ranks(self, values: Tensor) -> Tensor:
        """Elementwise mean of `values` over all ranks. All ranks must call."""
        torch.distributed.all_reduce(values)
        return values / torch.distributed.get_world_size()

    def barrier(self) -> None:
        """Waits for all ranks. All ranks must call."""
        torch.distributed.barrier()

    def close(self) -> None:
        """Lets go of what training took. All ranks must call."""
        self._engine.destroy()
