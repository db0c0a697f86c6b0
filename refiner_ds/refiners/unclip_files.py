"""Whether an unCLIP checkpoint's files are all there and whole, from their heads and sizes: no network is loaded.

Beside the family's folder and not in it, since importing that takes diffusers, and seconds.
"""

import hashlib
import json
import math
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from huggingface_hub import snapshot_download

from refiner_ds.errors import UserError

INDEX = "model_index.json"
DIFFUSERS, TRANSFORMERS = ("diffusion_pytorch_model", "diffusion_pytorch_model"), ("model", "pytorch_model")
WEIGHTS = {
    "vae": DIFFUSERS,
    "text_encoder": TRANSFORMERS,
    "unet": DIFFUSERS,
    "image_encoder": TRANSFORMERS,
    "image_normalizer": DIFFUSERS,
}
"""Parts with weights, and how their files are called: as safetensors, and as .bin."""
OTHERS = {
    "tokenizer": ("tokenizer.json", "vocab.json"),
    "scheduler": ("scheduler_config.json",),
    "feature_extractor": ("preprocessor_config.json",),
    "image_noising_scheduler": ("scheduler_config.json",),
}
"""Parts without: one of these files must be there."""
TRAINED = "unet"
SAMPLES, SAMPLE_BYTES = 16, 4096
"""What the digest reads of each weight file, evenly spaced: hosts with other weights differ in it."""


@dataclass(frozen=True)
class Whole:
    """A checkpoint whose files are whole: 16 hex digits that tell it from others, and the weights of what is trained.

    `parameters` is None where these lie in .bin files, whose heads do not tell.
    """

    digest: str
    parameters: int | None


def cached_folder(base: str, revision: str | None) -> Path | None:
    """The folder of a base on this machine: itself, or in the hub's cache; None if it would have to be downloaded."""
    if Path(base).is_dir():
        return Path(base)
    if base.count("/") != 1 or base.startswith((".", "/", "~")):
        raise UserError(f"model {base} is no folder here; put it where all hosts see it, or name a hub id.")
    try:
        return Path(snapshot_download(base, revision=revision, local_files_only=True))
    except (OSError, ValueError):
        return None


def look_whole(base: str, folder: Path, variant: str | None) -> Whole:
    """Looks at every file that training would load.

    Raises:
        UserError: names the first one that is missing, cut short or unreadable.
    """
    _json(base, folder / INDEX)
    for part, names in OTHERS.items():
        if not any((folder / part / name).is_file() for name in names):
            raise _broken(base, f"has no {part}/{names[0]}, so its {part} cannot be loaded")
    digest, parameters = hashlib.sha256(), 0
    known = True
    for part in WEIGHTS:
        digest.update(json.dumps(_json(base, folder / part / "config.json"), sort_keys=True).encode())
        for path in _weight_files(base, folder, part, variant):
            count = _count(base, path)
            known = known and not (part == TRAINED and count is None)
            parameters += (count or 0) if part == TRAINED else 0
            digest.update(_sample(path))
    return Whole(digest.hexdigest()[:16], parameters if known else None)


def _broken(base: str, what: str) -> UserError:
    return UserError(f"model {base} {what}; download, make or export it again.")


def _json(base: str, path: Path) -> dict[str, Any]:
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, TypeError, ValueError) as error:
        raise _broken(base, f"has no readable {path.name} in {path.parent}") from error


def _weight_files(base: str, folder: Path, part: str, variant: str | None) -> Iterator[Path]:
    """The files of a part's weights: one, or several by their index; safetensors before .bin."""
    tail = f".{variant}" if variant else ""
    for stem, ending in zip(WEIGHTS[part], ("safetensors", "bin"), strict=True):
        index = folder / part / f"{stem}.{ending}.index{tail}.json"
        if (one := folder / part / f"{stem}{tail}.{ending}").exists():
            yield one
            return
        if index.exists():
            pieces = sorted(set(_json(base, index)["weight_map"].values()))
            yield from (folder / part / piece for piece in pieces)
            return
    raise _broken(base, f"has no weights of its {part}{f' in the variant {variant}' if variant else ''}")


def _count(base: str, path: Path) -> int | None:
    """Values in a weight file, which must be as long as its head says."""
    name = f"{path.parent.name}/{path.name}"
    try:
        size = path.stat().st_size
        if path.suffix == ".bin":
            with path.open("rb") as file:
                is_archive = file.read(2) == b"PK"  # as torch writes since 1.6; its directory is at its end
            if is_archive and not zipfile.is_zipfile(path):
                raise _broken(base, f"has {name} cut short at {size} bytes")
            return None
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            head = json.loads(file.read(length)) if 0 < length <= size - 8 else None
        if not isinstance(head, dict):
            raise _broken(base, f"has {name} cut short at {size} bytes, within its head")
        tensors = [entry for key, entry in head.items() if key != "__metadata__"]
        expected = 8 + length + max((entry["data_offsets"][1] for entry in tensors), default=0)
        if size != expected:
            raise _broken(
                base, f"has {name} of {size} bytes where its head says {expected}: it is cut short or damaged"
            )
        return sum(math.prod(entry["shape"]) for entry in tensors)
    except (OSError, KeyError, TypeError, ValueError) as error:
        if isinstance(error, UserError):
            raise
        raise _broken(base, f"has {name} that cannot be read ({error})") from error


def _sample(path: Path) -> bytes:
    """A digest of a file's size and of pieces of it."""
    size = path.stat().st_size
    digest = hashlib.sha256(f"{path.name} {size}".encode())
    with path.open("rb") as file:
        for number in range(SAMPLES):
            file.seek(number * max(size - SAMPLE_BYTES, 0) // (SAMPLES - 1))
            digest.update(file.read(SAMPLE_BYTES))
    return digest.digest()
