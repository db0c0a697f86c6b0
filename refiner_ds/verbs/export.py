"""`refiner-ds export`: a checkpoint becomes a diffusers pipeline folder, or an adapter; needs neither GPU nor ranks."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from refiner_ds.checkpoint.layout import Checkpoint
from refiner_ds.checkpoint.snapshot import AVERAGE, MASTER
from refiner_ds.checkpoint.state import SavedState
from refiner_ds.checkpoint.whole import find_whole, require_here
from refiner_ds.config.verbs.models import Export, Replay
from refiner_ds.errors import UserError, note
from refiner_ds.folders import made_whole
from refiner_ds.refiners.unclip.adapter import is_adapter, open_adapter, origin_of
from refiner_ds.refiners.unclip.origin import Origin, adaptation_in
from refiner_ds.refiners.unclip.precision import PRECISIONS
from refiner_ds.refiners.unclip.refiner import UnclipRefiner
from refiner_ds.refiners.unclip.weights import first_not_finite
from refiner_ds.tracking.journal import read_metrics
from refiner_ds.verbs.export_record import read_record, require_place, write_record
from refiner_ds.verbs.model_card import write_card

OPEN_AT_ONCE = 64
"""Weights that are read before the checkpoint's files are opened anew, as what was read of a mapped file stays in
memory for as long as that is open."""
REMEDY = "--pretrained_model_name_or_path names the base of the run where it is now."


def run(options: Export) -> None:
    """Copies the weights of all ranks, one at a time, into the base that they were trained from, and saves that."""
    require_place(options.out, options.replace)
    if is_adapter(options.checkpoint):
        _export_adapter(options)
    else:
        _export_checkpoint(options)


def _export_checkpoint(options: Export) -> None:
    checkpoint = find_whole(options.checkpoint, note)
    require_here(checkpoint)
    _require_updates(checkpoint, options.lora)
    kind = _kind_of(checkpoint, options.weights)
    refiner, origin = base_of(checkpoint, options, PRECISIONS[options.dtype])
    if origin.adaptation.lora_rank is None:  # low-rank updates are added in fp32
        refiner.cast(PRECISIONS[options.dtype])
    refiner.load_weights(_finite(checkpoint, kind))
    facts = {
        "step": checkpoint.step,
        "images_seen": checkpoint.commit.get("images_seen"),
        "weights": "ema" if kind == AVERAGE else "trained",
        "figures": _figures(checkpoint),
        "training": _training(checkpoint),
        **replace(origin, fingerprint=refiner.base_fingerprint).described(),
    }
    _write(refiner, options, facts)
    what = "adapter" if options.lora == "adapter" else "refiner"
    averaged = ", averaged weights" if kind == AVERAGE else ""
    print(f"{what} of step {checkpoint.step} in {options.out}{averaged}, {options.dtype}")


def _export_adapter(options: Export) -> None:
    """An adapter becomes a pipeline, as the checkpoint would that it was made of."""
    if options.lora == "adapter":
        raise UserError(
            f"--lora adapter, but {options.checkpoint} is an adapter already; leave it out to have it merged."
        )
    origin = _where_it_is(origin_of(options.checkpoint), options)
    refiner = open_adapter(options.checkpoint, origin, REMEDY, PRECISIONS[options.dtype])
    _write(refiner, options, {**(read_record(options.checkpoint) or {}), **origin.described()})
    print(f"refiner of adapter {options.checkpoint} in {options.out}, {options.dtype}")


def _write(refiner: UnclipRefiner, options: Export, facts: dict[str, Any]) -> None:
    dtype = PRECISIONS[options.dtype]
    facts = {**facts, "lora": options.lora, "dtype": options.dtype}
    with made_whole(options.out, options.replace) as scratch:
        if options.lora == "adapter":
            refiner.save_adapter(scratch, dtype)
        else:
            refiner.save(scratch, dtype)
        write_card(scratch, options.out.resolve().name, facts)
        write_record(scratch, facts)


def _finite(checkpoint: Checkpoint, kind: str) -> Iterator[tuple[str, Tensor]]:
    """Every trained weight by name, in fp32, one at a time.

    Raises:
        UserError: there is a NaN or an infinity among them; names the weight.
    """
    saved = SavedState(checkpoint.path)
    for number, name in enumerate(saved.shapes):
        if number % OPEN_AT_ONCE == 0:
            saved = SavedState(checkpoint.path)
        weight = saved.whole(name, kind)
        if first_not_finite({name: weight}):
            raise UserError(
                f"{checkpoint.path} has NaN or infinity in {name}, so it would repair nothing; "
                "export an earlier checkpoint, and train on with a lower --learning_rate."
            )
        yield name, weight


def base_of(
    checkpoint: Checkpoint, options: Export | Replay, dtype: torch.dtype = torch.float32
) -> tuple[UnclipRefiner, Origin]:
    """The base that was trained, adapted as it was, its frozen parts in a precision of choice; and where it lies.

    Raises:
        UserError: it is no longer where it was, or no longer what it was.
    """
    origin = _where_it_is(_origin_of(checkpoint), options)
    return origin.load(str(checkpoint.path), REMEDY, dtype), origin


def _origin_of(checkpoint: Checkpoint) -> Origin:
    commit = checkpoint.commit
    base = commit["pretrained_model_name_or_path"], commit.get("revision"), commit.get("variant")
    return Origin(*base, commit.get("base_fingerprint"), adaptation_in(commit))


def _where_it_is(origin: Origin, options: Export | Replay) -> Origin:
    """The same base, where it is now if it has moved."""
    if not options.pretrained_model_name_or_path:
        return origin
    place = Path(options.pretrained_model_name_or_path)
    base = str(place.resolve() if place.is_dir() else place)  # an adapter's record is read from anywhere
    return replace(origin, base=base, revision=options.revision, variant=options.variant)


def _require_updates(checkpoint: Checkpoint, lora: str) -> None:
    if lora == "adapter" and adaptation_in(checkpoint.commit).lora_rank is None:
        raise UserError(
            f"--lora adapter, but {checkpoint.path} was trained in full, so there are no low-rank updates to write "
            "apart; leave it out, or train with --lora_rank."
        )


def _kind_of(checkpoint: Checkpoint, choice: str) -> str:
    has_average = SavedState(checkpoint.path).has_average
    if choice == "ema" and not has_average:
        raise UserError(
            f"--weights ema, but {checkpoint.path} has no moving average, as its run was trained without --use_ema; "
            "take --weights trained."
        )
    return AVERAGE if has_average and choice != "trained" else MASTER


def _training(checkpoint: Checkpoint) -> dict[str, Any]:
    """What its run was told that a user of the refiner may want to know."""
    names = ("global_batch_size", "buckets", "shards_digest", "seed")
    told = {name: checkpoint.commit[name] for name in names if name in checkpoint.commit}
    settings = checkpoint.commit.get("settings", {})
    return told | ({"learning_rate": settings["learning_rate"]} if "learning_rate" in settings else {})


def _figures(checkpoint: Checkpoint) -> dict[str, float]:
    """What its validation found, as far as the run's journal lies beside it."""
    found = read_metrics(checkpoint.path.parent)
    validations = {name: by_step for name, by_step in found.items() if name.startswith("val/")}
    return {name: by_step[checkpoint.step] for name, by_step in validations.items() if checkpoint.step in by_step}
