"""Which weights of the network are trained: all, attention alone, in full or through low-rank updates."""

from pathlib import Path

import torch
from diffusers import UNet2DConditionModel
from peft import LoraConfig
from safetensors.torch import save_file
from torch import nn

from refiner_ds.chance import key_of
from refiner_ds.errors import UserError
from refiner_ds.refiners.unclip.options import Adaptation
from refiner_ds.refiners.unclip.parts import Parts
from refiner_ds.refiners.unclip.portable.samplers import make_sampler

ADAPTER = "refiner"
"""What the library calls our low-rank updates, in the names of their weights too."""
LOW_RANK = "pytorch_lora_weights.safetensors"
"""The updates by themselves; diffusers reads them by `unet.load_lora_adapter(folder, weight_name=..., prefix=None)`."""
IN_FULL = "conv_in.safetensors"
"""Beside them the one layer that is trained in full, by its names in the UNet: it replaces the base's."""


def adapt(parts: Parts, options: Adaptation) -> None:
    """Sets up schedule and trained weights in place, in a network that is a refiner already.

    Raises:
        UserError: a last timestep without signal where the noise is to be predicted.
    """
    if options.prediction_type:
        parts.scheduler.register_to_config(prediction_type=options.prediction_type)
    if options.zero_terminal_snr:
        # PNDM divides by the signal's share at the last timestep (Lin et al. 2024, sections 3.1 and 3.3); DDIM does not
        changes = {"rescale_betas_zero_snr": True, "timestep_spacing": "trailing"}
        parts.scheduler = make_sampler("DDIMScheduler", dict(parts.scheduler.config), **changes)
    if parts.scheduler.config.prediction_type == "epsilon" and parts.scheduler.alphas_cumprod[-1] == 0:
        raise UserError(
            "with --rescale_betas_zero_snr, or a base made so, no signal is left at the last timestep, and predicting "
            "the noise (epsilon) says nothing of the picture; take --prediction_type v_prediction, or leave it out."
        )
    layers = _layers(parts.unet, options.trainable)
    parts.unet.requires_grad_(options.trainable == "all" and options.lora_rank is None)
    if options.lora_rank is not None:
        _add_low_rank(parts.unet, layers, options.lora_rank, options.seed)
    else:
        for name in layers:
            parts.unet.get_submodule(name).requires_grad_(True)
    parts.unet.conv_in.requires_grad_(True)


def merge(unet: UNet2DConditionModel) -> None:
    """Adds low-rank updates, where there are any, to the weights that they update, and takes their layers away."""
    if getattr(unet, "peft_config", None):
        unet.fuse_lora()
        unet.unload_lora()


def write_adapter(unet: UNet2DConditionModel, folder: Path) -> None:
    """Writes what was trained of a network with low-rank updates, in the precision that it has."""
    unet.save_lora_adapter(folder, adapter_name=ADAPTER)
    weights = {f"conv_in.{name}": weight.contiguous() for name, weight in unet.conv_in.state_dict().items()}
    save_file(weights, folder / IN_FULL, metadata={"format": "pt"})


def _layers(unet: UNet2DConditionModel, trainable: str) -> list[str]:
    """Full names of the linear and convolutional layers that are trained, conv_in aside."""
    return [
        name
        for name, module in unet.named_modules()
        if isinstance(module, nn.Linear | nn.Conv2d)
        and name != "conv_in"
        and (trainable == "all" or ".attn1." in name or ".attn2." in name)
    ]


def _add_low_rank(unet: UNet2DConditionModel, layers: list[str], rank: int, seed: int) -> None:
    """Low-rank layers beside the frozen ones; they start at zero, and equal on all ranks."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(key_of(seed, "lora"))
        unet.add_adapter(LoraConfig(r=rank, lora_alpha=rank, target_modules=layers), adapter_name=ADAPTER)
