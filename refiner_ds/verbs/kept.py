"""A folder of repairs that later commands add to: what made its pictures, and which of them are done."""

import hashlib
import json
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image, UnidentifiedImageError
from PIL.PngImagePlugin import PngInfo

from refiner_ds.errors import UserError
from refiner_ds.folders import file_made_whole
from refiner_ds.verbs.jobs import Job

RECORD = "repair.json"
"""Lies in the folder and says what made its pictures."""

INPUTS = "refiner_ds:inputs"
"""Text in each picture: the digest of the files that it was made of."""

_OF_A_MODEL = {".json", ".txt", ".safetensors", ".bin"}


def digest_of_model(*folders: Path) -> str:
    """The same for equal files wherever they lie; another one if any weight differs. An adapter lies in two folders.

    Every byte counts, 4 s for the UNet of SD 2.1: samples of the files would do for full training, but merged low-rank
    updates leave all of them but the attention's weights as they were.
    """
    files = {file: file.relative_to(folder).as_posix() for folder in folders for file in _files_of(folder)}
    with ThreadPoolExecutor() as threads:  # hashing and reading let other threads run
        digests = list(threads.map(_digest_of_file, files))
    names = list(files.values())
    return hashlib.blake2b(json.dumps([names, digests]).encode(), digest_size=16).hexdigest()


def _files_of(folder: Path) -> list[Path]:
    files = sorted([*folder.glob("*/*"), *folder.glob("*.safetensors"), folder / "model_index.json"])
    return [file for file in files if file.suffix in _OF_A_MODEL and file.is_file()]


@dataclass(frozen=True)
class Kept:
    """The folder of one command's repairs; `made_by` is all that decides its pictures beside their own files."""

    folder: Path
    made_by: Mapping[str, Any]

    def require_same(self, any_done: bool = False) -> None:
        """Refuses a folder whose pictures were made otherwise; it may be new.

        Raises:
            UserError: names the first difference; or there are pictures and no record of what made them.
        """
        record = _read_record(self.folder)
        if record is None and any_done:
            raise UserError(
                f"output folder {self.folder} holds repairs but no {RECORD}, so nothing tells what made them; "
                "name another --output."
            )
        for name, value in self.made_by.items():
            if record is not None and record.get(name) != value:
                raise UserError(
                    f"output folder {self.folder} holds repairs that were made {_told(name, record.get(name), value)}, "
                    f"so two kinds would be mixed; name another --output, or give what its {RECORD} tells."
                )

    def write(self, job: Job, picture: Image.Image) -> None:
        """Writes a picture into its folder, whole or not at all, after the record of what made it.

        Raises:
            UserError: meanwhile another command has begun to fill the folder.
        """
        if _read_record(self.folder) is None:
            with file_made_whole(self.folder / RECORD) as scratch:
                scratch.write_text(json.dumps(self.made_by, indent=1) + "\n", encoding="utf-8")
        self.require_same()
        stamp = PngInfo()
        stamp.add_text(INPUTS, _digest_of_inputs(job))
        with file_made_whole(job.output) as scratch:
            picture.save(scratch, "PNG", pnginfo=stamp)


def is_done(job: Job) -> bool:
    """True for a picture that is there, made of the files as they are now.

    Raises:
        UserError: what is there is something else.
    """
    if not job.output.exists():
        return False
    try:
        with Image.open(job.output) as picture:
            stamp = picture.info.get(INPUTS)
    except (OSError, UnidentifiedImageError):
        stamp = None
    if stamp == _digest_of_inputs(job):
        return True
    raise UserError(
        f"{job.output} is there, but was not made of {' and '.join(map(str, job.files.values()))} as they are now; "
        "take it away to have it made anew, or name another --output."
    )


def _told(name: str, before: Any, now: Any) -> str:
    if name == "model":
        return "by a model whose files differ from those of --model"
    none = "the model's own" if name == "scheduler" else "none"
    before, now = (none if value is None else value for value in (before, now))
    return f"with {name} {before} and this command has {now}"


def _read_record(folder: Path) -> dict[str, Any] | None:
    path = folder / RECORD
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except FileNotFoundError:
        return None
    except (OSError, TypeError, ValueError) as error:
        raise UserError(
            f"{path} cannot be read ({error}), so nothing tells what made the pictures beside it; "
            "name another --output."
        ) from error


def _digest_of_inputs(job: Job) -> str:
    return hashlib.blake2b("".join(map(_digest_of_file, job.files.values())).encode(), digest_size=16).hexdigest()


def _digest_of_file(path: Path) -> str:
    digest = hashlib.blake2b(digest_size=16)
    try:
        with path.open("rb") as file:
            while block := file.read(1 << 22):
                digest.update(block)
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}); mend the path or its permissions.") from error
    return digest.hexdigest()
