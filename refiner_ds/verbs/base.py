"""`refiner-ds base`: makes a base checkpoint, its VAE trained on pictures where it is tiny."""

from pathlib import Path

import torch
from PIL import Image

from refiner_ds.config.verbs.models import Base
from refiner_ds.data.example import draw_frames
from refiner_ds.data.images import PictureError, decode, to_array
from refiner_ds.errors import UserError
from refiner_ds.folders import made_whole, require_free
from refiner_ds.refiners.unclip.base import FULL, TINY, make_parts, save_base
from refiner_ds.refiners.unclip.vae_training import CROP, train_vae
from refiner_ds.verbs.progress import progress_bar

STREETS = range(1000, 1006)
"""Seeds of the streets that are drawn where no pictures are given; quickstart trains and tests on others."""
FRAMES, SHAPES = 4, ((416, 112), (160, 120))


def run(options: Base) -> None:
    """Makes the checkpoint and says what came of it."""
    require_free(options.out, "a checkpoint is never overwritten")
    if options.size == "full":
        with made_whole(options.out) as scratch:
            save_base(make_parts(FULL, options.seed, scratch), scratch)
        print(f"base of the real shapes with random weights in {options.out}")
        return
    pictures = _given(options.pictures) if options.pictures else _drawn()
    with made_whole(options.out) as scratch:
        psnr = _make_tiny(options, pictures, scratch)
    print(f"tiny base in {options.out}; its VAE reconstructs held-out pictures at {psnr:.2f} dB PSNR")


def _make_tiny(options: Base, pictures: list[torch.Tensor], folder: Path) -> float:
    parts = make_parts(TINY, options.seed, folder)
    with progress_bar() as tell:
        psnr = train_vae(
            parts.vae,
            pictures,
            options.vae_steps,
            options.seed,
            lambda done, total: tell("training the VAE", done, total),
        )
    save_base(parts, folder)
    return psnr


def _drawn() -> list[torch.Tensor]:
    """Photographs and renders of example streets, (3, H, W) uint8: the VAE has to show both."""
    frames = [frame for seed in STREETS for frame in draw_frames(FRAMES, SHAPES, seed)]
    arrays = [array for frame in frames for array in (frame.gt, frame.render)]
    return [torch.from_numpy(to_array(Image.fromarray(array))) for array in arrays]


def _given(folder: Path) -> list[torch.Tensor]:
    pictures = []
    for path in sorted(folder.rglob("*")):
        if path.suffix.lower() in (".png", ".jpg", ".jpeg", ".webp"):
            try:
                pictures.append(torch.from_numpy(to_array(decode(path.read_bytes()))))
            except PictureError as error:
                raise UserError(f"--pictures: {path} {error}.") from error
    usable = [picture for picture in pictures if min(picture.shape[1:]) >= CROP]
    if len(usable) < 8:
        raise UserError(
            f"--pictures {folder} holds {len(usable)} pictures of at least {CROP}x{CROP} pixels, too few to train a "
            "VAE; give at least 8."
        )
    return usable
