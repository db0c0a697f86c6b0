"""What the benches of a model share: its shapes, device and precision out of the options, and a base to measure."""

import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import torch

from refiner_ds.bench.encoded import Shape
from refiner_ds.config.deepspeed import Precision
from refiner_ds.config.verbs.benches import BenchEncode, BenchRepair, BenchStep
from refiner_ds.errors import UserError
from refiner_ds.refiners.unclip.base import FULL, FULL_ENCODERS, TINY, Shapes, make_parts, save_base
from refiner_ds.refiners.unclip.precision import PRECISIONS
from refiner_ds.verbs.device import device_of
from refiner_ds.verbs.measured import command_of, machine_of
from refiner_ds.versions import versions
from refiner_ds.world import World

SEED = 0
DISK_BYTES = {"tiny": 50_000_000, "full-encoders": 3_000_000_000, "full": 8_500_000_000}
"""Of a base with random weights, while the bench runs."""
SHAPES = {"tiny": TINY, "full-encoders": FULL_ENCODERS, "full": FULL}
RESOLUTIONS = {"tiny": "64x64", "full-encoders": "64x64", "full": "512x512"}
"""Pixels of a crop, HEIGHTxWIDTH, where none are given."""
LEAST_SIDE, FACTOR = 32, 8
"""A side is at least so many pixels, and a multiple of so many, which make one of a latent."""


def shape_of(shapes: Shapes) -> Shape:
    """Of what the encoders of a base make; each level of the VAE but the first halves the sides."""
    return Shape(4, 2 ** (len(shapes.vae_channels) - 1), shapes.embedding)


@dataclass(frozen=True)
class Setting:
    """What is measured, every default filled."""

    device: torch.device
    size: str
    height: int
    width: int
    precision: Precision

    @property
    def is_square(self) -> bool:
        """Whether crops are, as all crops of training."""
        return self.height == self.width

    @property
    def precision_told(self) -> str:
        """fp32, fp16 or bf16."""
        return {"no": "fp32"}.get(self.precision, self.precision)

    @property
    def dtype(self) -> torch.dtype:
        """Of matrix products."""
        return PRECISIONS[self.precision_told]

    def about(self, verb: str, options: Any, load: float, what: str, **more: Any) -> dict[str, Any]:
        """How it was measured, for the page and for JSON; `load` is the machine's load average before."""
        threads = f"torch's threads {torch.get_num_threads()}; " if self.device.type == "cpu" else ""
        return {
            "command": command_of(verb, options),
            "machine": machine_of(self.device),
            "date": date.today().isoformat(),
            "what": f"{threads}{self.size} model with random weights, crops of {self.height}x{self.width} (HxW), {what}"
            f"; load average {load:.1f} before; median [min..max] over rounds: {options.rounds}",
            "device": self.device.type,
            "size": self.size,
            "resolution": f"{self.height}x{self.width}",
            "precision": self.precision,
            "threads": torch.get_num_threads(),
            "rounds": options.rounds,
            "versions": versions(),
            **more,
        }


def setting_of(options: BenchStep | BenchEncode | BenchRepair, on_gpu: Precision = "bf16") -> Setting:
    """Reads the options.

    Args:
        on_gpu: precision on a GPU where none is given.

    Raises:
        UserError: they leave nothing to measure.
    """
    if options.rounds < 1:
        raise UserError(f"--rounds {options.rounds} measures nothing; give at least 1.")
    device = device_of(options.device, World())
    size = options.size or ("full" if device.type == "cuda" else "tiny")
    height, width = _sides(options.resolution or RESOLUTIONS[size])
    precision: Precision = options.precision or (on_gpu if device.type == "cuda" else "no")
    return Setting(device, size, height, width, precision)


def _sides(text: str) -> tuple[int, int]:
    """Height and width of HEIGHTxWIDTH."""
    found = re.fullmatch(r"(\d+)x(\d+)", text)
    if not found:
        raise UserError(f"--resolution {text} is no HEIGHTxWIDTH, so no crop can be cut; write e.g. 512x512.")
    height, width = int(found[1]), int(found[2])
    if min(height, width) < LEAST_SIDE or height % FACTOR or width % FACTOR:
        raise UserError(
            f"--resolution {text} gives the network no whole number of latents on every level; take sides of at least "
            f"{LEAST_SIDE} pixels that are multiples of {FACTOR}."
        )
    return height, width


def load_now() -> float:
    """Processes that run or wait to, over the last minute."""
    return os.getloadavg()[0]


@contextmanager
def folder_for(size: str, needed: int) -> Iterator[Path]:
    """Yields a temporary folder on a disk with room for so many bytes.

    Raises:
        UserError: there is none.
    """
    with tempfile.TemporaryDirectory(prefix="refiner-ds-bench-") as name:
        free = shutil.disk_usage(name).free
        if free < needed:
            raise UserError(
                f"--size {size} takes {needed / 1e9:.1f} GB of disk and {name} has {free / 1e9:.1f} free, so no base "
                "can be made; set TMPDIR to a folder on another disk."
            )
        yield Path(name)


def make_base(shapes: Shapes, folder: Path) -> Path:
    """A base with random weights in `folder`."""
    save_base(make_parts(shapes, SEED, folder / "base"), folder / "base")
    return folder / "base"
