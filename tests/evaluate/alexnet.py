"""An AlexNet with weights by chance, as torchvision publishes its own: LPIPS is computed, and means nothing."""

from pathlib import Path

import torch
from torch import nn

from refiner_ds.evaluate.perceptual import LPIPS_FILE


def alexnet() -> nn.Sequential:
    """The layers before its classifier; the same ones at any time."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(
            nn.Conv2d(3, 64, 11, 4, 2), nn.ReLU(True), nn.MaxPool2d(3, 2), nn.Conv2d(64, 192, 5, padding=2),
            nn.ReLU(True), nn.MaxPool2d(3, 2), nn.Conv2d(192, 384, 3, padding=1), nn.ReLU(True),
            nn.Conv2d(384, 256, 3, padding=1), nn.ReLU(True), nn.Conv2d(256, 256, 3, padding=1), nn.ReLU(True),
            nn.MaxPool2d(3, 2),
        )  # fmt: skip


def write_alexnet(hub: Path) -> Path:
    """Puts it where torch's hub, whose folder is given, has it."""
    path = hub / "checkpoints" / LPIPS_FILE
    path.parent.mkdir(parents=True)
    held = {f"features.{name}": value for name, value in alexnet().state_dict().items()}
    torch.save({**held, "classifier.1.weight": torch.zeros(2)}, path)
    return path
