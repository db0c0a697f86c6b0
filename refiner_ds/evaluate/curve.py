"""The curve of the loss as an inline SVG."""

import math
from collections.abc import Mapping, Sequence

WIDTH, HEIGHT = 900, 260
LEFT, RIGHT, BOTTOM, TOP = 50, WIDTH - 10, HEIGHT - 30, 10


def loss_curve(losses: Mapping[int, float]) -> str:
    """The loss by step: every finite value, and its running mean over a twentieth of the run."""
    steps = sorted(step for step, loss in losses.items() if math.isfinite(loss))
    values = [losses[step] for step in steps]
    peak = max(values)

    def line(kind: str, figures: Sequence[float]) -> str:
        across = [LEFT + (step - steps[0]) / max(1, steps[-1] - steps[0]) * (RIGHT - LEFT) for step in steps]
        down = [BOTTOM - figure / peak * (BOTTOM - TOP) for figure in figures]
        points = " ".join(f"{x:.1f},{y:.1f}" for x, y in zip(across, down, strict=True))
        return f"<polyline class='{kind}' points='{points}'/>"

    return (
        f"<svg viewBox='0 0 {WIDTH} {HEIGHT}' role='img' aria-label='training loss by step'>"
        f"<line class='axis' x1='{LEFT}' y1='{BOTTOM}' x2='{RIGHT}' y2='{BOTTOM}'/>"
        f"<text x='{LEFT}' y='{HEIGHT - 10}'>step {steps[0]}</text>"
        f"<text x='{RIGHT}' y='{HEIGHT - 10}' text-anchor='end'>step {steps[-1]}</text>"
        f"<text x='{LEFT - 8}' y='{TOP + 8}' text-anchor='end'>{peak:.2f}</text>"
        f"<text x='{LEFT - 8}' y='{BOTTOM}' text-anchor='end'>0</text>"
        f"{line('raw', values)}{line('mean', running_mean(values, max(1, len(values) // 20)))}</svg>"
    )


def running_mean(values: Sequence[float], window: int) -> list[float]:
    """Mean of each value with the up to window - 1 before it."""
    windows = [values[max(0, i - window + 1) : i + 1] for i in range(len(values))]
    return [sum(part) / len(part) for part in windows]
