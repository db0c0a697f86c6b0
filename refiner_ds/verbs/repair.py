"""`refiner-ds repair`: repairs one picture, or all of a manifest, with an exported refiner."""

from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from refiner_ds.config.verbs import Repair
from refiner_ds.data.images import PictureError, decode, to_array
from refiner_ds.data.manifest import read_manifest
from refiner_ds.errors import UserError
from refiner_ds.refiners.unclip.refiner import UnclipRefiner
from refiner_ds.verbs.device import place
from refiner_ds.verbs.progress import progress_bar


def run(options: Repair) -> None:
    """Repairs and writes PNG files."""
    jobs = _jobs(options)
    refiner = UnclipRefiner(str(options.model))
    sampling = refiner.sampling.but(options.num_inference_steps, options.guidance_scale)
    place(refiner, options.device)
    with progress_bar() as tell:
        for number, (render_path, cond_path, output) in enumerate(jobs):
            render, cond = read_picture(render_path), read_picture(cond_path)
            if render.shape != cond.shape:
                raise UserError(
                    f"{render_path} is {_size(render)} and its reference {cond_path} is {_size(cond)}, so their "
                    "latents do not align; resize one to the other's size."
                )
            picture = refiner.repair(render, cond, [options.seed], sampling)
            output.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(picture[0].permute(1, 2, 0).cpu().numpy()).save(output)
            tell("repairing", number + 1, len(jobs))
    print(f"{len(jobs)} repaired in {options.output}")


def _jobs(options: Repair) -> list[tuple[Path, Path, Path]]:
    """(render, cond, output) of every picture to repair."""
    if options.manifest and not (options.render or options.cond):
        samples = read_manifest(options.manifest, ("render", "cond"))
        outputs = [options.output / Path(sample.sources["render"]).with_suffix(".png").name for sample in samples]
        if len(set(outputs)) < len(outputs):
            raise UserError(
                f"--manifest {options.manifest} has renders of equal file name, so one repair would overwrite another; "
                "split the manifest or rename the files."
            )
        return [(s.files["render"], s.files["cond"], out) for s, out in zip(samples, outputs, strict=True)]
    if options.render and options.cond and not options.manifest:
        output = options.output / f"{options.render.stem}.png" if options.output.is_dir() else options.output
        return [(options.render, options.cond, output)]
    raise UserError("repair takes either --render and --cond, or --manifest; give one of the two.")


def read_picture(path: Path) -> Tensor:
    """(1, 3, H, W) uint8 of a picture file.

    Raises:
        UserError: the file cannot be read or is no usable picture.
    """
    try:
        return torch.from_numpy(to_array(decode(path.read_bytes())))[None]
    except OSError as error:
        raise UserError(f"picture {path} cannot be read ({error.strerror}); mend the path.") from error
    except PictureError as error:
        raise UserError(f"picture {path} {error}.") from error


def _size(picture: Tensor) -> str:
    return f"{picture.shape[-1]}x{picture.shape[-2]}"
