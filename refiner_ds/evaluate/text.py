"""A summary as lines for a terminal."""

from collections.abc import Iterator

from refiner_ds.evaluate.summary import LEVEL, Estimate, Summary

NAMES = {"psnr": "PSNR, dB", "ssim": "SSIM", "lpips": "LPIPS", "dino": "DINO"}
DIGITS = {"psnr": 2}
"""Decimals of a metric; four of all others."""


def lines_of(found: Summary) -> Iterator[str]:
    """A row for each metric, and below what the repair made worse."""
    yield f"{'':<10}{'render':>9}{'repaired':>10}{'gain':>10}   {LEVEL:.0%} of {found.drawn}"
    for name, gain in found.gain.items():
        digits = DIGITS.get(name, 4)
        means = f"{found.render[name].mean:>9.{digits}f}{found.repaired[name].mean:>10.{digits}f}"
        yield f"{NAMES.get(name, name):<10}{means}{gain.mean:>+10.{digits}f}   {interval_text(gain, digits)}"
    yield ". ".join(_changes(found)) + "."


def interval_text(estimate: Estimate, digits: int) -> str:
    """From where to where a gain may lie."""
    return f"{estimate.low:+.{digits}f} to {estimate.high:+.{digits}f}"


def _changes(found: Summary) -> Iterator[str]:
    yield f"{round(found.worse.mean * found.samples)} of {found.samples} samples have a lower PSNR than before"
    if "harmed" in found.regions:
        yield f"Where the render was right, {found.regions['harmed'].mean:.1%} became wrong"
    if "healed" in found.regions:
        yield f"Where it was wrong, {found.regions['healed'].mean:.1%} became right"
