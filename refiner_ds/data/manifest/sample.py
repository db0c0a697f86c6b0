"""One sample as a manifest names it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

VIEWS = ("render", "gt", "cond")
"""The views of a sample: degraded render and photograph of the target view, photograph of the reference view."""


@dataclass(frozen=True)
class Sample:
    """Files of one sample by view, and what its manifest says of it.

    Attributes:
        files: where each picture is.
        sources: the same paths in the manifest's own spelling.
        scene: what its neighbours share, such as a drive; None where unknown.
        split: "train" or "val" where the manifest itself divides its samples, else None.
        dataset: number of the source that it comes from.
    """

    files: dict[str, Path]
    sources: dict[str, str]
    scene: str | None = None
    split: str | None = None
    dataset: int = 0

    @property
    def name(self) -> str:
        """What messages call it: its render as written, or another view where it has none."""
        return next(iter(self.sources.values()))


def sample_at(base: Path, sources: Mapping[str, str], scene: str | None = None, split: str | None = None) -> Sample:
    """A sample whose relative paths start at `base`."""
    return Sample({view: base / source for view, source in sources.items()}, dict(sources), scene, split)


def named(names: Sequence[object]) -> str:
    """The first three, for a message that has counted them all."""
    return ", ".join(map(str, names[:3])) + (", ..." if len(names) > 3 else "")
