"""`refiner-ds export`: a checkpoint becomes a diffusers pipeline folder."""

from dataclasses import fields
from pathlib import Path

from refiner_ds.checkpoint.layout import Checkpoint, complete_checkpoints, read
from refiner_ds.checkpoint.snapshot import AVERAGE, MASTER
from refiner_ds.checkpoint.state import SavedState
from refiner_ds.config.verbs import Export, Replay
from refiner_ds.errors import UserError
from refiner_ds.folders import made_whole, require_free
from refiner_ds.refiners.unclip.options import Adaptation
from refiner_ds.refiners.unclip.refiner import UnclipRefiner
from refiner_ds.refiners.unclip.weights import first_not_finite


def run(options: Export) -> None:
    """Joins the fp32 weights of all ranks and saves them with the frozen parts of the base."""
    require_free(options.out, "an export is never mixed")
    checkpoint = _find(options.checkpoint)
    refiner = base_of(checkpoint, options)
    saved = SavedState(checkpoint.path)
    averaged = _takes_average(checkpoint, saved, options.weights)
    weights = {name: saved.whole(name, AVERAGE if averaged else MASTER) for name in saved.shapes}
    if broken := first_not_finite(weights):
        raise UserError(
            f"{checkpoint.path} has NaN or infinity in {broken}, so it would repair nothing; "
            "export an earlier checkpoint, and train on with a lower --learning_rate."
        )
    with made_whole(options.out) as scratch:
        refiner.save(scratch, weights)
    print(f"refiner of step {checkpoint.step} in {options.out}{', averaged weights' if averaged else ''}")


def base_of(checkpoint: Checkpoint, options: Export | Replay) -> UnclipRefiner:
    """The base that was trained, adapted as it was for that.

    Raises:
        UserError: it is no longer where it was, or no longer what it was.
    """
    commit = checkpoint.commit
    changes = {field.name: commit[field.name] for field in fields(Adaptation) if field.name in commit}
    base, revision, variant = commit["pretrained_model_name_or_path"], commit.get("revision"), commit.get("variant")
    if options.pretrained_model_name_or_path:
        base, revision, variant = options.pretrained_model_name_or_path, options.revision, options.variant
    try:
        refiner = UnclipRefiner(base, revision, variant, Adaptation(**changes))
    except UserError as error:
        raise UserError(
            f"{error} --pretrained_model_name_or_path names the base of the run where it is now."
        ) from error
    if commit.get("base_fingerprint", refiner.base_fingerprint) != refiner.base_fingerprint:
        raise UserError(
            f"{checkpoint.path} was trained from other weights than the base {base} has now, and would be mixed with "
            "them; name the base of the run with --pretrained_model_name_or_path."
        )
    return refiner


def _takes_average(checkpoint: Checkpoint, saved: SavedState, choice: str) -> bool:
    is_there = saved.has_average
    if choice == "ema" and not is_there:
        raise UserError(
            f"--weights ema, but {checkpoint.path} has no moving average, as its run was trained without --use_ema; "
            "take --weights trained."
        )
    return is_there and choice != "trained"


def _find(path: Path) -> Checkpoint:
    """The named checkpoint, or the newest complete one of a run's folder."""
    checkpoint = read(path) or next(iter(complete_checkpoints(path)[::-1]), None)
    if checkpoint is None:
        raise UserError(
            f"{path} is no complete checkpoint and holds none, so there is nothing to export; "
            "name a checkpoint-STEP folder or the --output_dir of a run."
        )
    return checkpoint
