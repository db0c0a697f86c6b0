"""Curves by step as inline SVG."""

import math
from collections.abc import Mapping, Sequence

WIDTH, HEIGHT = 560, 240
LEFT, RIGHT, BOTTOM, TOP = 60, WIDTH - 14, HEIGHT - 30, 14

Series = Mapping[int, float]
"""A figure by step; what is not finite is left out."""


def loss_curve(losses: Series) -> str:
    """The loss by step: every finite value, and its running mean over a twentieth of the run."""
    steps = _steps(losses)
    values = [losses[step] for step in steps]
    smooth = running_mean(values, max(1, len(values) // 20))
    mean = dict(zip(steps, smooth, strict=True))
    return chart("training loss by step", {"raw": losses, "first": mean}, lowest=0.0)


def chart(label: str, lines: Mapping[str, Series], lowest: float | None = None) -> str:
    """Lines by their class in the style sheet, over common axes.

    Args:
        label: what a screen reader says of it.
        lowest: bottom of the axis; the smallest value where not given.
    """
    steps = sorted({step for series in lines.values() for step in _steps(series)})
    values = [series[step] for series in lines.values() for step in _steps(series)]
    bottom, peak = min(values) if lowest is None else lowest, max(values)
    span = (peak - bottom) or 1.0

    def place(step: int, value: float) -> tuple[float, float]:
        across = LEFT + (step - steps[0]) / max(1, steps[-1] - steps[0]) * (RIGHT - LEFT)
        return across, BOTTOM - (value - bottom) / span * (BOTTOM - TOP)

    drawn = []
    for kind, series in lines.items():
        points = [place(step, series[step]) for step in _steps(series)]
        drawn.append(f"<polyline class='{kind}' points='{' '.join(f'{x:.1f},{y:.1f}' for x, y in points)}'/>")
        if kind == "first" and len(points) <= 30:
            drawn += [f"<circle cx='{x:.1f}' cy='{y:.1f}' r='3.5'/>" for x, y in points]
    return (
        f"<svg viewBox='0 0 {WIDTH} {HEIGHT}' role='img' aria-label='{label}'>"
        f"<line class='axis' x1='{LEFT}' y1='{BOTTOM}' x2='{RIGHT}' y2='{BOTTOM}'/>"
        f"<text x='{LEFT}' y='{HEIGHT - 8}'>step {steps[0]:,}</text>"
        f"<text x='{RIGHT}' y='{HEIGHT - 8}' text-anchor='end'>step {steps[-1]:,}</text>"
        f"<text x='{LEFT - 8}' y='{TOP + 8}' text-anchor='end'>{peak:.4g}</text>"
        f"<text x='{LEFT - 8}' y='{BOTTOM}' text-anchor='end'>{bottom:.4g}</text>"
        f"{''.join(drawn)}</svg>"
    )


def running_mean(values: Sequence[float], window: int) -> list[float]:
    """Mean of each value with the up to window - 1 before it."""
    windows = [values[max(0, i - window + 1) : i + 1] for i in range(len(values))]
    return [sum(part) / len(part) for part in windows]


def _steps(series: Series) -> list[int]:
    return sorted(step for step, value in series.items() if math.isfinite(value))
