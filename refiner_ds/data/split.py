"""Which samples are held out for validation: a pure function of the samples, the rule and a seed."""

import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Literal

from refiner_ds.chance import generator_of, key_of
from refiner_ds.data.manifest import Sample
from refiner_ds.errors import UserError

By = Literal["last", "random", "scene"]
"""How samples are held out: the last of the list, some drawn one by one, or whole scenes drawn."""


@dataclass(frozen=True)
class Val:
    """How many samples are held out, a count (int) or a share of all (Fraction), and how they are chosen."""

    amount: int | Fraction
    by: By = "last"

    def count_of(self, total: int) -> int:
        """Samples to hold out of `total`; a share is rounded up."""
        return self.amount if isinstance(self.amount, int) else math.ceil(self.amount * total)

    def __str__(self) -> str:
        return str(self.amount if isinstance(self.amount, int) else float(self.amount))


BASELINE = Val(10)
"""GaussianRefiner's rule: the last ten."""


def parse_val(text: str, by: By = "last") -> Val:
    """Reads the flag --val: a count such as 10, or a share such as 5% or 0.05, which is kept exactly.

    Raises:
        UserError: it is neither, is below 0, or is a share that is not between 0 and 1.
    """
    text = text.strip()
    if text.isdecimal():
        return Val(int(text), by)
    if not re.fullmatch(r"-?(\d+\.?\d*|\.\d+)%?", text):
        raise UserError(
            f"--val {text} is no number of samples to hold out; give a count such as 10, or a share such as 5% or 0.05."
        )
    share = Fraction(text.removesuffix("%")) / (100 if text.endswith("%") else 1)
    if share < 0:
        raise UserError(f"--val {text} is no number of samples to hold out; give 0 to hold out none, or more.")
    if not 0 < share < 1:
        raise UserError(
            f"--val {text} is a share that is not between 0 and 1, so either side of the split would be empty; "
            "give a share such as 5% or 0.05, or a count such as 10."
        )
    return Val(share, by)


def split_of(samples: Sequence[Sample], val: Val | None, seed: int) -> list[str]:
    """The split of each sample, "train" or "val".

    What a manifest itself divides stays as it is; `val` divides the other samples.

    Args:
        val: None where it was not asked for: the manifests' own split, and `BASELINE` for samples without one.

    Raises:
        UserError: no training sample is left, or all samples have a split and `val` is given all the same; by scene
            also where samples have none, there is only one, or too few samples are left to train on.
    """
    ours = [number for number, sample in enumerate(samples) if sample.split is None]
    if val and not ours:
        raise UserError(
            f"--val {val} divides samples that their manifest has divided into train and val already, so one of the "
            "two would be ignored; leave --val out, or take the split out of the manifest."
        )
    held = _held_out(samples, ours, val or BASELINE, seed) if ours else set()
    splits = [sample.split or ("val" if number in held else "train") for number, sample in enumerate(samples)]
    if "train" not in splits:
        raise UserError(
            f"all {len(samples)} samples are held out by their manifests, which leaves no training sample; "
            "move some to train."
        )
    return splits


def leak_of(samples: Sequence[Sample], splits: Sequence[str]) -> str | None:
    """A warning where frames of one scene are on both sides, None where none are or the scenes are unknown."""
    sides: dict[str, set[str]] = {}
    for sample, split in zip(samples, splits, strict=True):
        if sample.scene is not None:
            sides.setdefault(sample.scene, set()).add(split)
    torn = [scene for scene, found in sides.items() if len(found) > 1]
    if not torn:
        return None
    named = ", ".join(torn[:3]) + (", ..." if len(torn) > 3 else "")
    is_ours = any(sample.split is None for sample in samples)
    remedy = "hold out whole scenes with --split scene" if is_ours else "divide the manifest by scene"
    return (
        f"{len(torn)} of {len(sides)} scenes are on both sides of the split ({named}), so validation sees neighbours "
        f"of what was trained on and flatters the refiner; {remedy}."
    )


def _held_out(samples: Sequence[Sample], ours: Sequence[int], val: Val, seed: int) -> set[int]:
    """Numbers, out of `ours`, of the samples that `val` holds out."""
    total, count = len(ours), val.count_of(len(ours))
    if count >= total:
        raise UserError(
            f"--val {val} of {total} samples leaves no training sample; hold out fewer than {total}."
            if total > 1
            else f"--val {val} of 1 sample leaves no training sample; list more samples, or hold out 0."
        )
    if count == 0:
        return set()
    if val.by == "last":
        return set(ours[-count:])
    if val.by == "random":
        drawn = generator_of(seed, "hold out", total).permutation(total)[:count]
        return {ours[number] for number in drawn.tolist()}
    scenes = _scenes_of([samples[number] for number in ours])
    sides = {sample.scene: sample.split for sample in samples if sample.split and sample.scene is not None}
    chosen = _scenes_held_out(Counter(scenes), sides, val, count, seed)
    return {number for number, scene in zip(ours, scenes, strict=True) if scene in chosen}


def _scenes_held_out(sizes: Mapping[str, int], sides: Mapping[str, str], val: Val, count: int, seed: int) -> set[str]:
    """Whole scenes of at least `count` samples, but never all.

    A scene's turn depends on the seed and its name alone, so scenes that are added later leave the turns of the others.
    A name is one scene in all data sets, so that two sets made of one drive stay together.

    Args:
        sizes: samples of each scene.
        sides: scenes that a manifest has put on a side, where their other samples go too.
    """
    if len(sizes.keys() | sides.keys()) == 1:
        raise UserError(
            f"--split scene: all {sum(sizes.values())} samples are of scene {next(iter(sizes))}, so holding it out "
            "leaves no training sample; pack more scenes, or hold out by last or random."
        )
    turns = sorted((s for s in sizes if s not in sides), key=lambda scene: (key_of(seed, f"hold out {scene}"), scene))
    chosen = {scene for scene in sizes if sides.get(scene) == "val"}
    filled = most = sum(sizes[scene] for scene in chosen)
    for scene in turns:
        if filled >= count:
            break
        most = filled
        chosen.add(scene)
        filled += sizes[scene]
    has_training = chosen < sizes.keys() or "train" in sides.values()
    if filled < count or not has_training:
        raise UserError(
            f"--val {val} --split scene: {len(sizes)} scenes of {sum(sizes.values())} samples, drawn whole with seed "
            f"{seed}, cannot hold out {count} and leave a scene to train on; "
            f"hold out at most {filled if has_training else most}."
        )
    return chosen


def _scenes_of(samples: Sequence[Sample]) -> list[str]:
    scenes = [sample.scene for sample in samples if sample.scene is not None]
    if len(scenes) < len(samples):
        first = next(sample for sample in samples if sample.scene is None)
        raise UserError(
            f"--split scene: {len(samples) - len(scenes)} of {len(samples)} samples have no scene ({first.name} is "
            "the first), so their neighbours are unknown; name scenes in the manifest, or by --scene_pattern."
        )
    return scenes
