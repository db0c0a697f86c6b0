"""The refiner as a diffusers pipeline: from a degraded render and a reference view to a repaired picture."""

import json
import math
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import DiffusionPipeline, ImagePipelineOutput
from diffusers.utils.torch_utils import randn_tensor
from PIL import Image
from torch import Tensor
from torch.nn.functional import pad

from .frozen_encoders import ClassVector, Encoders
from .guided_sampling import CONDITIONS, Conditions, sample
from .mutual_attention import make_refiner
from .overlapping_tiles import Tiles
from .samplers import sampler_in_place_of

SOURCES = (
    "unclip_refiner_pipeline.py",
    "frozen_encoders.py",
    "guided_sampling.py",
    "mutual_attention.py",
    "overlapping_tiles.py",
    "samplers.py",
)
"""The files beside this one, and itself: the code that lies in a saved folder."""

FORMAT = 1
"""Goes up when a folder can no longer be read by what was released before."""

PROMPT = "best quality, high quality"
NEGATIVE_PROMPT = "low quality, bad quality"

Generators = torch.Generator | Sequence[torch.Generator] | None
References = Image.Image | Sequence[Image.Image] | Sequence[Sequence[Image.Image]]


class UnclipRefinerPipeline(DiffusionPipeline):
    """Repairs degraded renders of 3D Gaussian Splatting with the help of a photograph from a nearby view.

    `DiffusionPipeline.from_pretrained(folder, trust_remote_code=True)(render, reference).images[0]`. The algorithm is
    GaussianRefiner's: Stable Diffusion 2.1 unCLIP whose UNet also sees the render's latents, and whose self-attention
    lets the target attend to the reference.
    """

    model_cpu_offload_seq = "text_encoder->image_encoder->unet->vae"
    unet: Any
    scheduler: Any

    def __init__(
        self,
        vae: Any,
        text_encoder: Any,
        tokenizer: Any,
        unet: Any,
        scheduler: Any,
        feature_extractor: Any,
        image_encoder: Any,
        image_normalizer: Any,
        image_noising_scheduler: Any,
        refiner_format: int = FORMAT,
        num_inference_steps: int = 20,
        guidance_scale: float = 10.0,
    ) -> None:
        """`num_inference_steps` and `guidance_scale` are how this refiner is meant to be sampled.

        Raises:
            ValueError: the folder is of a later format than this code.
        """
        super().__init__()
        if refiner_format > FORMAT:
            raise ValueError(
                f"this refiner's folder has format {refiner_format} and this code knows formats up to {FORMAT}; "
                "upgrade refiner_ds, or load the folder with the code that lies in it."
            )
        self.register_modules(
            vae=vae,
            text_encoder=text_encoder,
            tokenizer=tokenizer,
            unet=unet,
            scheduler=scheduler,
            feature_extractor=feature_extractor,
            image_encoder=image_encoder,
            image_normalizer=image_normalizer,
            image_noising_scheduler=image_noising_scheduler,
        )
        for part in (vae, text_encoder, unet, image_encoder, image_normalizer):
            # torch computes with other kernels where weights want gradients, and a picture would round otherwise
            part.requires_grad_(False)
        self.register_to_config(
            refiner_format=refiner_format, num_inference_steps=num_inference_steps, guidance_scale=guidance_scale
        )
        make_refiner(unet)
        self.encoders = Encoders(self)

    def save_config(self, save_directory: Any, push_to_hub: bool = False, **kwargs: Any) -> None:
        """Writes model_index.json and, beside it, the code that it names: so the folder loads without refiner_ds.

        Raises:
            ValueError: it is to be pushed, which would leave the code behind.
        """
        if push_to_hub:
            raise ValueError("save_config pushes model_index.json without its code; push with save_pretrained instead.")
        super().save_config(save_directory, **kwargs)
        here = Path(__file__)
        for name in SOURCES:
            shutil.copyfile(here.with_name(name), Path(save_directory) / name)
        path = Path(save_directory) / self.config_name
        index = {**json.loads(path.read_text(encoding="utf-8")), "_class_name": [here.stem, type(self).__name__]}
        path.write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")

    def use_scheduler(self, name: str) -> None:
        """Swaps the scheduler for another one of diffusers by its class name, with the noise that it was trained on.

        Raises:
            ValueError: there is none of this name that could take its place; names those that can.
        """
        self.scheduler = sampler_in_place_of(self.scheduler, name)

    @torch.no_grad()
    def __call__(
        self,
        render: Image.Image | Sequence[Image.Image],
        reference: References,
        num_inference_steps: int | None = None,
        guidance_scale: float | None = None,
        generator: Generators = None,
        tile_size: int | None = None,
        prompt: str = PROMPT,
        negative_prompt: str = NEGATIVE_PROMPT,
        unguided: Sequence[str] = ("embedding",),
        output_type: str = "pil",
        return_dict: bool = True,
    ) -> ImagePipelineOutput | tuple:
        """Repairs one render or a batch of renders.

        Args:
            render: one picture, or B of one size; of any size.
            reference: for one render a picture of its size, or several; for B renders B of either.
            num_inference_steps: sampling steps; the refiner's own where not given.
            guidance_scale: from the negative to the good prompt; the refiner's own where not given. 1 is none, and
                takes half the time.
            generator: one for all, or one for each render; draws the starting noise.
            tile_size: side in pixels of the overlapping tiles in which a large picture is worked on; all at once where
                not given.
            unguided: conditions that the negative half of guidance goes without: "render", "embedding", "reference".
            output_type: "pil", "np" ((B, H, W, 3) in 0..1) or "pt" ((B, 3, H, W) uint8).

        Returns:
            `.images`: the repaired pictures, each of its render's size; a tuple of them without `return_dict`.

        Raises:
            ValueError: pictures that do not fit together, or a setting that repairs nothing.
        """
        renders, references = self._pictures(render, reference)
        repaired = self.repair(
            renders,
            references,
            generator,
            self.config.num_inference_steps if num_inference_steps is None else num_inference_steps,
            self.config.guidance_scale if guidance_scale is None else guidance_scale,
            tile_size,
            (negative_prompt, prompt),
            unguided,
        ).cpu()
        self.maybe_free_model_hooks()
        images: Any = repaired
        if output_type != "pt":
            images = repaired.permute(0, 2, 3, 1).numpy()
            images = [Image.fromarray(one) for one in images] if output_type == "pil" else images / np.float32(255)
        return ImagePipelineOutput(images=images) if return_dict else (images,)

    def _pictures(self, render: Any, reference: Any) -> tuple[Tensor, Tensor]:
        """(B, 3, H, W) renders and (B, R, 3, H, W) references, uint8."""
        if isinstance(render, Image.Image):
            render, reference = [render], [reference]
        groups = [[one] if isinstance(one, Image.Image) else list(one) for one in reference]
        if len(groups) != len(render) or len({len(group) for group in groups}) != 1 or not groups[0]:
            counts = ", ".join(str(len(group)) for group in groups)
            raise ValueError(
                f"{len(render)} renders came with references for {len(groups)} ({counts} each), and every render needs "
                "the same number of them, at least one; give as many references, or groups of them, as renders."
            )
        sizes = sorted({picture.size for picture in (*render, *(one for group in groups for one in group))})
        if len(sizes) > 1:
            text = ", ".join(f"{width}x{height}" for width, height in sizes)
            raise ValueError(
                f"renders and references of one call differ in size ({text}), so they do not align; "
                "give pictures of one size."
            )
        return _stacked(render), torch.stack([_stacked(group) for group in groups])

    @torch.no_grad()
    def repair(
        self,
        renders: Tensor,
        references: Tensor,
        generator: Generators,
        num_inference_steps: int,
        guidance_scale: float,
        tile_size: int | None = None,
        prompts: tuple[str, str] = (NEGATIVE_PROMPT, PROMPT),
        unguided: Sequence[str] = ("embedding",),
    ) -> Tensor:
        """Repairs renders (B, 3, H, W) with references (B, R, 3, H, W), uint8 of any size, to (B, 3, H, W) uint8.

        The source of a pair is the clean latent of a reference at timestep 0, at every step, and never sees the target:
        it runs once. Guidance (Ho and Salimans 2022) runs between the bad and the good prompt; at 1 the bad half is not
        computed. With tiles, the noise that the UNet predicts is blended at every step.

        Raises:
            ValueError: a setting that repairs nothing.
        """
        self.require_sampling(num_inference_steps, guidance_scale, tile_size, unguided)
        device, factor = self._execution_device, self.encoders.factor
        height, width = renders.shape[-2:]
        batch, num_references = references.shape[:2]
        margin = (0, -width % factor, 0, -height % factor)
        padded = [
            pad(pictures.to(device).float(), margin, mode="replicate").to(torch.uint8)
            for pictures in (renders, references.flatten(0, 1))
        ]
        rows, columns = (side // factor for side in padded[0].shape[-2:])
        tiles = Tiles(rows, columns, tile_size and tile_size // factor, device)
        render, source = (self._latents(pictures, tiles) for pictures in padded)
        embedding = self.encoders.embedding(references.flatten(0, 1).to(device))
        embedding = embedding.unflatten(0, (batch, num_references)).mean(dim=1)
        start = randn_tensor(render.shape, _listed(generator), device)
        vector = ClassVector(self, device)(embedding, randn_tensor(embedding.shape, _listed(generator), device))
        conditions = Conditions(self.encoders.text(prompts, device), vector, guidance_scale, unguided)
        with self.progress_bar(total=num_inference_steps) as bar:
            target = sample(
                self.unet,
                self.scheduler,
                num_inference_steps,
                tiles,
                render,
                source,
                start,
                conditions,
                _listed(generator),
                bar,
            )
        if not target.isfinite().all():
            raise ValueError(
                f"sampling ended in numbers that are not finite, in {self.unet.dtype}, so there is no picture to show; "
                "compute in another precision, or export an earlier checkpoint."
            )
        decoded = tiles.blend(lambda i: self.encoders.pictures(tiles.of(target)[i]), factor)
        decoded = ((decoded.clamp(-1, 1) + 1.0) * 127.5).round().to(torch.uint8)
        return decoded[..., :height, :width]

    def _latents(self, pictures: Tensor, tiles: Tiles) -> Tensor:
        """Latents (B, c, h, w) of (B, 3, H, W) uint8, whole or blended of tiles."""
        factor = self.encoders.factor

        def encode(number: int) -> Tensor:
            rows, columns = (slice(side.start * factor, side.stop * factor) for side in tiles.windows[number])
            return self.encoders.latents(pictures[..., rows, columns])

        return tiles.blend(encode)

    def require_sampling(
        self, steps: int, guidance_scale: float, tile_size: int | None = None, unguided: Sequence[str] = ()
    ) -> None:
        """Refuses what repairs nothing.

        Raises:
            ValueError: names the setting, its value and the remedy.
        """
        most, factor = self.scheduler.config.num_train_timesteps, self.encoders.factor
        if not 1 <= steps <= most:
            raise ValueError(f"{steps} sampling steps repair nothing; take 1 to {most}, the steps of the schedule.")
        if not 1 <= guidance_scale < math.inf:
            raise ValueError(
                f"guidance {guidance_scale} leads away from the good prompt or nowhere; take 1 for none, or more."
            )
        smallest = 8 * factor
        if tile_size is not None and (tile_size < smallest or tile_size % factor):
            raise ValueError(
                f"tiles of {tile_size} pixels are no whole number of latents of {factor} pixels, or too "
                f"small to show anything; take a multiple of {factor} from {smallest} on."
            )
        if unknown := sorted(set(unguided) - set(CONDITIONS)):
            raise ValueError(
                f"unguided {', '.join(unknown)} is no condition of the refiner; name {', '.join(CONDITIONS)}."
            )


def _stacked(pictures: Sequence[Image.Image]) -> Tensor:
    """(B, 3, H, W) uint8 of pictures of one size."""
    return torch.stack([torch.from_numpy(np.array(one.convert("RGB"))).permute(2, 0, 1) for one in pictures])


def _listed(generator: Generators) -> Any:
    """As diffusers takes them."""
    return list(generator) if isinstance(generator, Sequence) else generator
