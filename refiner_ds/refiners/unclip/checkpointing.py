"""Which blocks of the UNet compute their activations a second time on the way back instead of keeping them."""

from diffusers import UNet2DConditionModel
from diffusers.models.transformers.transformer_2d import Transformer2DModel

from refiner_ds.refiners.protocol import Checkpointed


def checkpoint_blocks(unet: UNet2DConditionModel, blocks: Checkpointed) -> None:
    """Chooses them; it takes effect where gradients are on.

    Attention blocks, with their feed-forward layers, keep most for the arithmetic that they take again; convolutions of
    the inner levels take much and keep little.
    """
    unet.disable_gradient_checkpointing()
    if blocks == "nothing":
        return
    unet.enable_gradient_checkpointing()
    for module in unet.modules():
        if hasattr(module, "gradient_checkpointing"):
            module.gradient_checkpointing = blocks == "all" or isinstance(module, Transformer2DModel)
