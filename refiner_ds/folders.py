"""Output folders and files: refused in words before the work begins where they cannot be; made whole, or not at all."""

import glob
import os
import platform
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from refiner_ds.errors import UserError


def require_folder(out: Path) -> None:
    """Refuses a folder that can neither be written into nor be made.

    Raises:
        UserError: it is a file, lies below one, or may not be written.
    """
    place = out.resolve()
    place = next(path for path in (place, *place.parents) if path.exists())
    if not (place.is_dir() and os.access(place, os.W_OK | os.X_OK)):
        raise UserError(
            f"output folder {out} cannot be made, as {place} is no folder that can be written; name another folder."
        )


def require_free(out: Path, why: str) -> None:
    """Refuses a folder that `made_whole` could not put in place.

    Args:
        why: what would be wrong with writing into a folder that is not empty.

    Raises:
        UserError: the folder holds something, is a file, or cannot be made.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UserError(f"output folder {out} is not empty, and {why}; name another folder.")
    require_replaceable(out)


def require_replaceable(out: Path) -> None:
    """Refuses a folder whose name cannot be given to another one.

    Raises:
        UserError: it is the working folder, or cannot be made.
    """
    if out.exists() and out.samefile(Path.cwd()):
        raise UserError(
            f"output folder {out} is the working folder, which would be replaced under your feet; name another."
        )
    require_folder(out)


@contextmanager
def made_whole(out: Path, replaces: bool = False) -> Iterator[Path]:
    """Yields the path of a scratch folder beside `out`, which takes its place once the block has ended well.

    Whatever ends the block otherwise takes the scratch folder away; that of a killed process goes at the next attempt.

    Args:
        replaces: `out` may hold something, which stays until what takes its place is on the disk; see `restore_name`
            for a process that is killed between the two renames.
    """
    out = out.resolve()
    old = _replaced(out)
    scratch = _scratch_beside(out)
    scratch.mkdir(parents=True)
    try:
        yield scratch
        if replaces and out.exists():
            for path in (*scratch.rglob("*"), scratch):
                sync(path)
            shutil.rmtree(old, ignore_errors=True)
            out.rename(old)
        elif out.exists():
            out.rmdir()
        scratch.rename(out)
        if replaces:
            shutil.rmtree(old, ignore_errors=True)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def restore_name(out: Path) -> None:
    """Gives a folder its name back that was being replaced when the process ended between taking and giving it."""
    out = out.resolve()
    if _replaced(out).exists() and not out.exists():
        _replaced(out).rename(out)


def _replaced(out: Path) -> Path:
    """Where a folder lies for the moment between losing its name and being deleted."""
    return out.with_name(f".{out.name}.replaced")


@contextmanager
def file_made_whole(path: Path) -> Iterator[Path]:
    """The same for a file, which takes the place of one that is there; its folder must exist."""
    scratch = _scratch_beside(path)
    try:
        yield scratch
        with scratch.open("rb") as file:
            os.fsync(file.fileno())  # else a power cut could leave the name without its content
        scratch.replace(path)
    finally:
        scratch.unlink(missing_ok=True)


def _scratch_beside(path: Path) -> Path:
    """A hidden name beside `path` of this process's own; what killed processes left there under theirs is removed."""
    # with the host's name: on a shared disk, a number that is no process here may be one elsewhere
    prefix = f".{path.name}.making-{platform.node()}-"
    for left in path.parent.glob(f"{glob.escape(prefix)}*"):
        process = left.name.removeprefix(prefix)
        if process.isdecimal() and not _is_alive(int(process)):
            if left.is_dir():
                shutil.rmtree(left, ignore_errors=True)
            else:
                left.unlink(missing_ok=True)
    return path.with_name(f"{prefix}{os.getpid()}")


def _is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # alive, as another user's
        return True
    return True


def sync(path: Path) -> None:
    """Makes a file's bytes, or the names in a folder, last, whatever happens to the power."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
