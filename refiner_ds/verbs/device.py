"""Where verbs compute outside training, and a refiner put there."""

import os

import torch

from refiner_ds.config.verbs.models import Evaluate, Repair
from refiner_ds.errors import UserError
from refiner_ds.refiners.protocol import Refiner, Sampling
from refiner_ds.refiners.unclip.adapter import open_refiner
from refiner_ds.world import World


def device_of(choice: str, world: World) -> torch.device:
    """This rank's device by --device: a GPU of its own or, where there is none, its share of the cores.

    Raises:
        UserError: a GPU is asked for and there is none, or there are more ranks than GPUs.
    """
    num_gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if choice == "cuda" and not num_gpus:
        raise UserError("--device cuda, but torch finds no GPU here; take --device cpu or auto.")
    if choice == "cpu" or not num_gpus:
        if world.local_size > 1 and "OMP_NUM_THREADS" not in os.environ:  # else each rank would take all cores
            torch.set_num_threads(max(1, len(os.sched_getaffinity(0)) // world.local_size))
        return torch.device("cpu")
    require_gpus(num_gpus, world)
    torch.cuda.set_device(world.local_rank)
    return torch.device("cuda", world.local_rank)


def require_gpus(num_gpus: int, world: World) -> None:
    """Refuses a node with fewer GPUs than ranks.

    Raises:
        UserError: it is one.
    """
    if world.local_size > num_gpus:
        raise UserError(
            f"this node has {num_gpus} GPUs and is given {world.local_size} ranks, but a rank needs one of its own; "
            "start as many ranks as there are GPUs, or take --device cpu."
        )


def place(refiner: Refiner, device: torch.device) -> None:
    """Puts the whole refiner on the device: in fp16 on a GPU, in fp32 on the CPU."""
    refiner.place(device, torch.float16 if device.type == "cuda" else torch.float32, whole=True)


def load_refiner(options: Repair | Evaluate, device: torch.device) -> tuple[Refiner, Sampling]:
    """The refiner of --model on the device, and how it is to be sampled by the options.

    Raises:
        UserError: the model is none, or cannot be sampled so.
    """
    refiner = open_refiner(str(options.model))
    if options.scheduler is not None:
        refiner.use_scheduler(options.scheduler)
    sampling = refiner.sampling(options.num_inference_steps, options.guidance_scale, options.tile_size)
    place(refiner, device)
    return refiner, sampling
