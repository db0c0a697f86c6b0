"""Which validation of a run is the best: by the metric that it was told to take."""

import json
from collections.abc import Mapping
from pathlib import Path

from refiner_ds.checkpoint.retention import best_of
from refiner_ds.tracking.journal import SETTINGS

LEAST_IS_BEST = ("val/lpips", "val/worse_share")
"""Metrics that fall as a refiner becomes better; all others rise."""


def best_metric(folder: Path) -> str:
    """The metric by which a run tells the best, as it was last started."""
    try:
        flags = json.loads((folder / SETTINGS).read_text(encoding="utf-8"))["train"]
    except (OSError, ValueError, KeyError, TypeError):
        flags = {}
    return f"val/{flags.get('best_metric', 'psnr')}"


def best_steps(figures: Mapping[int, float], metric: str, count: int = 1) -> list[int]:
    """The steps with the best figures of a metric, best first; of equal ones the later."""
    return best_of(figures, figures, count, metric not in LEAST_IS_BEST)
