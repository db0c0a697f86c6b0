"""The refiner as a diffusers pipeline: from a degraded render and a reference view to a repaired picture."""

import inspect
import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import DiffusionPipeline, ImagePipelineOutput
from diffusers import schedulers as diffusers_schedulers
from diffusers.utils.torch_utils import randn_tensor
from PIL import Image
from torch import Tensor
from torch.nn.functional import pad

from .frozen_encoders import ClassVector, Encoders
from .mutual_attention import Memory, PairsApart, make_refiner
from .overlapping_tiles import Tiles

SOURCES = ("unclip_refiner_pipeline.py", "frozen_encoders.py", "mutual_attention.py", "overlapping_tiles.py")
"""The files beside this one, and itself: the code that lies in a saved folder."""

FORMAT = 1
"""Goes up when a folder can no longer be read by what was released before."""

PROMPT = "best quality, high quality"
NEGATIVE_PROMPT = "low quality, bad quality"

UNFIT = {"EDMEulerScheduler", "DPMSolverSDEScheduler"}
"""Samplers that diffusers holds for compatible and that are not: noise of their own, and a library that is not here."""

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
        self.register_to_config(
            refiner_format=refiner_format, num_inference_steps=num_inference_steps, guidance_scale=guidance_scale
        )
        make_refiner(unet)
        self.encoders = Encoders(self)

    def save_config(self, save_directory: Any, push_to_hub: bool = False, **kwargs: Any) -> None:
        """Writes model_index.json and, beside it, the code that it names: so the folder loads without refiner_ds."""
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
        fitting = sorted({scheduler.__name__ for scheduler in self.scheduler.compatibles} - UNFIT)
        if name not in fitting:
            raise ValueError(
                f"scheduler {name} cannot take the place of {type(self.scheduler).__name__}; "
                f"take one of {', '.join(fitting)}."
            )
        self.scheduler = getattr(diffusers_schedulers, name).from_config(self.scheduler.config)

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
        self._require(num_inference_steps, guidance_scale, tile_size, unguided)
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
        conditions = _Conditions(self.encoders.text(prompts, device), vector, guidance_scale, unguided)
        target = self._sample(render, source, start, conditions, num_inference_steps, tiles, _listed(generator))
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

    def _sample(
        self,
        render: Tensor,
        source: Tensor,
        start: Tensor,
        conditions: "_Conditions",
        num_inference_steps: int,
        tiles: Tiles,
        generator: Any,
    ) -> Tensor:
        """The sampling loop, on latents render and start (B, c, h, w) and source (B * R, c, h, w)."""
        num_references = len(source) // len(render)
        renders = tiles.of(render)
        scheduler = type(self.scheduler).from_config(self.scheduler.config)  # a sampler's memory belongs to one call
        scheduler.set_timesteps(num_inference_steps, device=render.device)
        takes = inspect.signature(scheduler.step).parameters
        chance = {"generator": generator} if "generator" in takes else {}  # of samplers that draw at every step
        target = start * scheduler.init_noise_sigma
        with PairsApart(self.unet, num_references) as pairs, self.progress_bar(total=len(scheduler.timesteps)) as bar:
            kept = [
                self._remember(pairs, piece, around, conditions)
                for piece, around in zip(tiles.of(source), renders, strict=True)
            ]
            for timestep in scheduler.timesteps:
                pieces = tiles.of(scheduler.scale_model_input(target, timestep))

                def predict(number: int, pieces: list[Tensor] = pieces, timestep: Tensor = timestep) -> Tensor:
                    pairs.attend_to(kept[number])
                    rows = torch.cat([conditions.halves(pieces[number]), conditions.renders(renders[number])], dim=1)
                    return conditions.guided(self._predict(rows, timestep, conditions))

                target = scheduler.step(tiles.blend(predict), timestep, target, **chance).prev_sample
                bar.update()
        return target

    def _remember(self, pairs: PairsApart, source: Tensor, render: Tensor, conditions: "_Conditions") -> Memory:
        """Runs source rows (B * R, c, h, w), each beside its render (B, c, h, w), at timestep 0."""
        beside = render.repeat_interleave(pairs.num_references, dim=0)
        rows = torch.cat([conditions.references(source), conditions.renders(beside)], dim=1)
        return pairs.remember(lambda: self._predict(rows, torch.zeros_like(rows[0, 0, 0, 0]), conditions))

    def _predict(self, rows: Tensor, timestep: Tensor, conditions: "_Conditions") -> Tensor:
        """What the UNet predicts for rows (halves * n, 2 c, h, w) of one kind, in fp32."""
        dtype = self.unet.dtype
        return self.unet(
            rows.to(dtype),
            timestep.expand(len(rows)),
            encoder_hidden_states=conditions.texts(len(rows)).to(dtype),
            class_labels=conditions.vectors(len(rows)).to(dtype),
        ).sample.float()

    def _require(self, steps: int, scale: float, tile_size: int | None, unguided: Sequence[str]) -> None:
        if steps < 1:
            raise ValueError(f"{steps} sampling steps repair nothing; take at least 1.")
        if not scale >= 1:
            raise ValueError(f"guidance {scale} leads away from the good prompt; take 1 for none, or more.")
        smallest = 8 * self.encoders.factor
        if tile_size is not None and (tile_size < smallest or tile_size % self.encoders.factor):
            raise ValueError(
                f"tiles of {tile_size} pixels are no whole number of latents of {self.encoders.factor} pixels, or too "
                f"small to show anything; take a multiple of {self.encoders.factor} from {smallest} on."
            )
        if unknown := sorted(set(unguided) - {"render", "embedding", "reference"}):
            raise ValueError(
                f"unguided {', '.join(unknown)} is no condition of the refiner; name render, embedding, reference."
            )


class _Conditions:
    """What both halves of guidance are told; one half alone where there is no guidance. The bad half comes first."""

    def __init__(self, texts: Tensor, vector: Tensor, scale: float, unguided: Sequence[str]) -> None:
        """texts: (2, tokens, d) of the bad and the good prompt; vector: (B, 2 d)."""
        self._scale, self._unguided = scale, unguided
        self._halves = 2 if scale != 1.0 else 1
        self._texts, self._vectors = texts[-self._halves :], self._dropped("embedding", vector)

    def halves(self, rows: Tensor) -> Tensor:
        """(n, ...) rows for every half: (halves * n, ...)."""
        return rows.repeat(self._halves, *[1] * (rows.dim() - 1))

    def renders(self, rows: Tensor) -> Tensor:
        """The same of render latents, zero where the bad half goes without."""
        return self._dropped("render", rows)

    def references(self, rows: Tensor) -> Tensor:
        """The same of reference latents."""
        return self._dropped("reference", rows)

    def texts(self, num_rows: int) -> Tensor:
        """Text states for (halves * n) rows."""
        return self._texts.repeat_interleave(num_rows // self._halves, dim=0)

    def vectors(self, num_rows: int) -> Tensor:
        """Class vectors for (halves * B * references) rows."""
        return self._vectors.repeat_interleave(num_rows // len(self._vectors), dim=0)

    def guided(self, predicted: Tensor) -> Tensor:
        """(halves * B, ...) predictions led from the bad to the good: (B, ...)."""
        if self._halves == 1:
            return predicted
        bad, good = predicted.chunk(2)
        return bad + self._scale * (good - bad)

    def _dropped(self, name: str, rows: Tensor) -> Tensor:
        bad = torch.zeros_like(rows) if name in self._unguided else rows
        return torch.cat([bad, rows][-self._halves :])


def _stacked(pictures: Sequence[Image.Image]) -> Tensor:
    """(B, 3, H, W) uint8 of pictures of one size."""
    return torch.stack([torch.from_numpy(np.array(one.convert("RGB"))).permute(2, 0, 1) for one in pictures])


def _listed(generator: Generators) -> Any:
    """As diffusers takes them."""
    return list(generator) if isinstance(generator, Sequence) else generator
