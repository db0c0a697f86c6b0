"""`refiner-ds export`: a checkpoint becomes a diffusers pipeline folder."""

from pathlib import Path

from refiner_ds.checkpoint.export import read_master_weights
from refiner_ds.checkpoint.layout import Checkpoint, complete_checkpoints, read
from refiner_ds.config.verbs import Export
from refiner_ds.errors import UserError
from refiner_ds.folders import made_whole, require_free
from refiner_ds.refiners.unclip.refiner import UnclipRefiner


def run(options: Export) -> None:
    """Joins the fp32 weights of all ranks and saves them with the frozen parts of the base."""
    require_free(options.out, "an export is never mixed")
    checkpoint = _find(options.checkpoint)
    refiner = UnclipRefiner(checkpoint.commit["pretrained_model_name_or_path"])
    weights = read_master_weights(checkpoint.path)
    with made_whole(options.out) as scratch:
        refiner.save(scratch, weights)
    print(f"refiner of step {checkpoint.step} in {options.out}")


def _find(path: Path) -> Checkpoint:
    """The named checkpoint, or the newest complete one of a run's folder."""
    checkpoint = read(path) or next(iter(complete_checkpoints(path)[::-1]), None)
    if checkpoint is None:
        raise UserError(
            f"{path} is no complete checkpoint and holds none, so there is nothing to export; "
            "name a checkpoint-STEP folder or the --output_dir of a run."
        )
    return checkpoint
