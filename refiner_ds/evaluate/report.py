"""report.html: one self-contained file with the numbers, the pictures side by side and the curve of the loss."""

import base64
import html
import io
from collections.abc import Mapping, Sequence
from pathlib import Path

from PIL import Image
from torch import Tensor

from refiner_ds.evaluate.curve import loss_curve
from refiner_ds.evaluate.repairs import Repaired

CSS = """
:root { color-scheme: light dark; --line: #8884; --soft: #888; --good: #2a9d5c; --bad: #c8553d; }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 1500px; margin: 2rem auto; padding: 0 1rem; }
h1 { margin-bottom: 0; } h2 { margin-top: 2.5rem; } .soft { color: var(--soft); }
table { border-collapse: collapse; }
td, th { padding: .35rem 1rem; border-bottom: 1px solid var(--line); text-align: right; }
td:first-child, th:first-child { text-align: left; padding-left: 0; }
.good { color: var(--good); } .bad { color: var(--bad); }
figure { margin: 0 0 2rem; } figcaption { margin-bottom: .4rem; }
.row { display: grid; grid-template-columns: repeat(4, 1fr); gap: 6px; }
.row div { font-size: .8rem; color: var(--soft); } .row img { width: 100%; display: block; border-radius: 3px; }
@media (max-width: 800px) { .row { grid-template-columns: repeat(2, 1fr); } }
svg { width: 100%; height: auto; max-width: 900px; } svg text { font-size: 12px; fill: var(--soft); }
svg .raw { fill: none; stroke: #888; stroke-opacity: .45; } svg .mean { fill: none; stroke: #2a6fdb; stroke-width: 2; }
svg .axis { stroke: var(--line); }
"""


def write_report(
    path: Path,
    samples: Sequence[Repaired],
    means: Mapping[str, Mapping[str, float]],
    losses: Mapping[int, float],
    model: str,
    how: str,
) -> None:
    """Writes the report of one evaluation.

    Args:
        losses: by step; none, and there is no curve.
        model, how: which refiner, and how it was sampled, in words.
    """
    parts = [
        "<!doctype html><html lang='en'><head><meta charset='utf-8'><title>Refiner report</title>",
        "<meta name='viewport' content='width=device-width, initial-scale=1'>",
        f"<style>{CSS}</style></head><body><h1>Refiner report</h1>",
        f"<p class='soft'>{html.escape(f'{model} · {len(samples)} held-out samples · {how}')}</p>",
        "<h2>Numbers</h2>",
        _table(samples, means),
        *(["<h2>Training loss</h2>", loss_curve(losses)] if len(losses) > 1 else []),
        "<h2>Pictures</h2>",
        *map(_figure, samples),
        "</body></html>",
    ]
    path.write_text("\n".join(parts), encoding="utf-8")


def _table(samples: Sequence[Repaired], means: Mapping[str, Mapping[str, float]]) -> str:
    gain = {name: means["repaired"][name] - means["render"][name] for name in means["render"]}
    worse = sum(s.repaired_metrics["psnr"] < s.render_metrics["psnr"] for s in samples)
    kind = {name: "good" if value > 0 else "bad" for name, value in gain.items()}
    return (
        "<table><tr><th>against gt</th><th>PSNR, dB</th><th>SSIM</th></tr>"
        + "".join(
            f"<tr><td>{name}</td><td>{row['psnr']:.2f}</td><td>{row['ssim']:.4f}</td></tr>"
            for name, row in means.items()
        )
        + f"<tr><td>gain</td><td class='{kind['psnr']}'>{gain['psnr']:+.2f}</td>"
        + f"<td class='{kind['ssim']}'>{gain['ssim']:+.4f}</td></tr></table>"
        + f"<p class='soft'>{worse} of {len(samples)} samples have a lower PSNR than before the repair.</p>"
    )


def _figure(sample: Repaired) -> str:
    before, after = sample.render_metrics, sample.repaired_metrics
    pictures = {
        f"render, {before['psnr']:.2f} dB": sample.batch.render,
        f"repaired, {after['psnr']:.2f} dB": sample.picture,
        "gt": sample.batch.gt,
        "cond": sample.batch.cond,
    }
    cells = "".join(
        f"<div>{name}<img alt='{name}' src='{_inline(picture)}'></div>" for name, picture in pictures.items()
    )
    change = after["psnr"] - before["psnr"]
    caption = (
        f"{html.escape(sample.batch.keys[0])} <span class='{'good' if change > 0 else 'bad'}'>{change:+.2f} dB</span> "
        f"<span class='soft'>SSIM {before['ssim']:.3f} to {after['ssim']:.3f}</span>"
    )
    return f"<figure><figcaption>{caption}</figcaption><div class='row'>{cells}</div></figure>"


def _inline(picture: Tensor) -> str:
    """A (1, 3, H, W) uint8 picture as a data address; JPEG, since the numbers are made from the pictures themselves."""
    buffer = io.BytesIO()
    Image.fromarray(picture[0].permute(1, 2, 0).numpy()).save(buffer, "JPEG", quality=92)
    return f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode()}"
