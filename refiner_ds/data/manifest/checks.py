"""What a sample must have to be used: all views, a render of its own, files that exist; the others are counted."""

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from refiner_ds.data.manifest.sample import Sample, named
from refiner_ds.errors import UserError

Skip = Callable[[str, str], None]
"""Told (the sample's render as written, why it cannot be used) of each sample that is left out."""


def complete(path: Path, samples: list[Sample], spelling: Mapping[str, str], skip: Skip | None = None) -> list[Sample]:
    """The samples that have all views.

    Args:
        spelling: what the manifest calls each view that is needed.

    Raises:
        UserError: some lack a view and there is no `skip`.
    """

    def reason(sample: Sample) -> str | None:
        lacking = [name for view, name in spelling.items() if view not in sample.sources]
        return f"lacks {' and '.join(lacking)}" if lacking else None

    def refuse(bad: list[tuple[Sample, str]]) -> str:
        which = named([f"{sample.name} {why}" for sample, why in bad])
        return (
            f"manifest {path}: {len(bad)} of its {len(samples)} samples lack a picture ({which}), and each needs "
            f"{', '.join(spelling.values())}; add what lacks, or take them out."
        )

    return _settle(samples, list(map(reason, samples)), refuse, skip)


def distinct(path: Path, samples: list[Sample], skip: Skip | None = None) -> list[Sample]:
    """The samples whose render no earlier one has.

    Raises:
        UserError: renders are listed again and there is no `skip`.
    """

    def refuse(bad: list[tuple[Sample, str]]) -> str:
        return (
            f"manifest {path}: {len(bad)} of its {len(samples)} samples repeat the render of an earlier one "
            f"({named([sample.name for sample, _ in bad])}), so one of a pair may be trained on and the other held "
            "out; list each render once, and draw a dataset more often by its weight."
        )

    reasons = [None if is_first else "repeats the render of an earlier sample" for is_first in _firsts(samples)]
    return _settle(samples, reasons, refuse, skip)


def existing(path: Path, samples: list[Sample], base: Path) -> list[Sample]:
    """These samples, whose files all exist.

    Args:
        base: where relative paths start.

    Raises:
        UserError: files are missing; all are counted.
    """
    # by text, which is hashed faster than a path; references are often shared
    files = dict.fromkeys(str(file) for sample in samples for file in sample.files.values())
    if missing := [file for file in files if not os.path.isfile(file)]:
        raise UserError(
            f"manifest {path}: {len(missing)} of its files do not exist ({named(missing)}); "
            f"mend the paths, which start at {base}/ where they are relative."
        )
    return samples


def _firsts(samples: Sequence[Sample]) -> list[bool]:
    """For each sample, whether no earlier one has its render; links are not followed."""
    seen: set[str] = set()
    firsts = []
    for sample in samples:
        render = os.path.abspath(sample.files["render"])
        firsts.append(render not in seen)
        seen.add(render)
    return firsts


def _settle(
    samples: list[Sample],
    reasons: list[str | None],
    refuse: Callable[[list[tuple[Sample, str]]], str],
    skip: Skip | None,
) -> list[Sample]:
    """The samples without a reason against them; the others are told to `skip`, or refused in one sentence."""
    bad = [(sample, reason) for sample, reason in zip(samples, reasons, strict=True) if reason]
    if bad and skip is None:
        raise UserError(refuse(bad))
    for sample, reason in bad:
        if skip:
            skip(sample.name, reason)
    return [sample for sample, reason in zip(samples, reasons, strict=True) if not reason]
