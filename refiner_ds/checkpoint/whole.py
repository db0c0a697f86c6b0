"""The checkpoint that somebody names, or the newest of a run, read through and found to be what was written."""

from collections.abc import Callable
from pathlib import Path

from refiner_ds.checkpoint.layout import (
    Checkpoint,
    complete_checkpoints,
    damage,
    incomplete_checkpoints,
    read,
    what_lacks,
)
from refiner_ds.errors import UserError


def find_whole(path: Path, tell: Callable[[str], None]) -> Checkpoint:
    """The checkpoint in a folder, or the newest whole one of a run's folder; its files here are read and compared.

    Args:
        tell: told of every newer one of the run that is not whole, and so not taken.

    Raises:
        UserError: the folder is neither, what is named is damaged, or no checkpoint of the run is whole.
    """
    named = read(path)
    if named:
        if faults := [*damage(named, named.commit["files"])]:
            raise UserError(
                f"{path} is damaged ({'; '.join(faults)}), so what is made of it would be too; name another checkpoint."
            )
        return named
    faulty = {incomplete: lacking for incomplete, lacking in incomplete_checkpoints(path).items() if path.is_dir()}
    for checkpoint in complete_checkpoints(path)[::-1]:
        faults = [*damage(checkpoint, checkpoint.commit["files"])]
        if not faults:
            for other, fault in faulty.items():
                tell(f"{other} is not whole ({fault}); {checkpoint.path.name} is taken")
            return checkpoint
        faulty[checkpoint.path] = "; ".join(faults)
    raise UserError(_nothing(path, faulty))


def require_here(checkpoint: Checkpoint) -> None:
    """Refuses a checkpoint of which some ranks wrote their parts into folders of other nodes.

    Raises:
        UserError: names a part and the host where it lies.
    """
    lacking = {
        name: host for name, host in checkpoint.commit["elsewhere"].items() if not (checkpoint.path / name).is_file()
    }
    if lacking:
        name, host = next(iter(lacking.items()))
        raise UserError(
            f"{checkpoint.path} lacks {len(lacking)} of its files here ({name} lies on {host}), as its run wrote into "
            "a folder of each node's own; bring all its rank-*.safetensors files into this folder."
        )


def _nothing(path: Path, faulty: dict[Path, str]) -> str:
    """Why there is no whole checkpoint."""
    if faulty:
        told = "; ".join(f"{folder.name}: {fault}" for folder, fault in faulty.items())
        return f"{path} holds no whole checkpoint ({told}), so there is nothing to export; bring one back from a copy."
    lacking = f" ({what_lacks(path)})" if path.name.startswith("checkpoint-") and path.is_dir() else ""
    return (
        f"{path} is no complete checkpoint{lacking} and holds none, so there is nothing to export; "
        "name a checkpoint-STEP folder or the --output_dir of a run."
    )
