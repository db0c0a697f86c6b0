"""Scenes from paths: a regular expression whose group is the scene's name."""

import re
from dataclasses import replace
from pathlib import Path

from refiner_ds.data.manifest.sample import Sample
from refiner_ds.errors import UserError


def parse_pattern(text: str) -> re.Pattern[str]:
    """Reads the flag --scene_pattern.

    Raises:
        UserError: it is no regular expression, or does not have exactly one group.
    """
    remedy = r"put the part that names the scene into one pair of parentheses, e.g. '(drive_\d+)/'."
    try:
        pattern = re.compile(text)
    except (re.error, RecursionError, OverflowError) as error:
        raise UserError(f"--scene_pattern '{text}' is no regular expression ({error}); {remedy}") from error
    if pattern.groups != 1:
        raise UserError(
            f"--scene_pattern '{text}' has {pattern.groups} groups, so what names the scene is not certain; {remedy}"
        )
    return pattern


def with_scenes(path: Path, samples: list[Sample], pattern: re.Pattern[str]) -> list[Sample]:
    """Samples without a scene get what the group matches, anywhere in the render's path as the manifest writes it.

    Raises:
        UserError: some renders do not match, or the group matches nothing in them.
    """
    scenes = [sample.scene or _scene_in(sample.sources["render"], pattern) for sample in samples]
    missed = [sample.name for sample, scene in zip(samples, scenes, strict=True) if not scene]
    if missed:
        raise UserError(
            f"--scene_pattern '{pattern.pattern}' names no scene for {len(missed)} of the {len(samples)} renders of "
            f"manifest {path} ({missed[0]} is the first), so they belong to none; widen the pattern."
        )
    return [replace(sample, scene=scene) for sample, scene in zip(samples, scenes, strict=True)]


def _scene_in(render: str, pattern: re.Pattern[str]) -> str | None:
    found = pattern.search(render)
    return found[1] if found else None
