"""report.html: one self-contained file with verdict, numbers, curves, cases behind a slider, configuration."""

import base64
import html
import io
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from PIL import Image

from refiner_ds.evaluate.curve import Series, chart, loss_curve
from refiner_ds.evaluate.pictures import Shown
from refiner_ds.evaluate.regions import WINDOW, WRONG_FROM
from refiner_ds.evaluate.repairs import Judged
from refiner_ds.evaluate.summary import LEVEL, Group, Summary
from refiner_ds.evaluate.text import DIGITS, NAMES, interval_text

PAGE = Path(__file__).with_name("page")
LOWER_IS_BETTER = ("lpips",)


@dataclass(frozen=True)
class Training:
    """What a report tells of the run that made the refiner.

    Attributes:
        metrics: every metric by name and step.
        settings: nested, as run.json has them.
    """

    metrics: Mapping[str, Series] = field(default_factory=dict)
    settings: Mapping[str, Any] = field(default_factory=dict)


def write_report(
    path: Path,
    found: Summary,
    shown: Mapping[str, Sequence[Shown]],
    model: str,
    how: str,
    training: Training,
    is_pipeline: bool = True,
) -> None:
    """Writes the report of one evaluation.

    Args:
        shown: samples by heading.
        model, how: which refiner, and how it was sampled, in words.
        is_pipeline: diffusers can load it by itself.
    """
    css, script = ((PAGE / name).read_text(encoding="utf-8") for name in ("report.css", "report.js"))
    parts = [
        "<!doctype html><html lang='en'><head><meta charset='utf-8'><title>Refiner report</title>",
        "<meta name='viewport' content='width=device-width, initial-scale=1'>",
        f"<style>{css}</style></head><body><main><h1>Refiner report</h1>",
        f"<div class='soft'>{html.escape(f'{model} · {found.samples} held-out samples · {how}')}</div>",
        f"<p class='verdict'>{_verdict(found)}</p>",
        f"<div class='cards'>{''.join(_cards(found))}</div>",
        "<h2>Numbers</h2>",
        _table(found),
        *_groups(found),
        *_curves(training.metrics),
        *(part for heading, samples in shown.items() for part in (f"<h2>{heading}</h2>", *map(_case, samples))),
        "<h2>Use it</h2>",
        f"<pre>{html.escape(_usage(model, is_pipeline))}</pre>",
        *_configuration(training.settings),
        f"</main><script>{script}</script></body></html>",
    ]
    path.write_text("\n".join(parts), encoding="utf-8")


def _verdict(found: Summary) -> str:
    gain, count = found.gain["psnr"], round(found.worse.mean * found.samples)
    certain = found.samples > 1 and (gain.low > 0 or gain.high < 0)
    way = "closer to" if gain.mean > 0 else "farther from"
    text = (
        f"On average the repaired pictures are <b class='{_kind(gain.mean)}'>{abs(gain.mean):.2f} dB</b> {way} the "
        f"photographs than the renders"
    )
    if not certain:
        text += f", which may be chance: the {LEVEL:.0%} interval reaches from {interval_text(gain, 2)} dB"
    worse = "none got worse" if not count else f"<b class='bad'>{count}</b> of {found.samples} got worse"
    return f"{text}; {worse}."


def _cards(found: Summary) -> Iterator[str]:
    for name, gain in found.gain.items():
        yield _card(f"{gain.mean:+.{DIGITS.get(name, 4)}f}", f"gain in {NAMES.get(name, name)}", _kind(gain.mean, name))
    yield _card(f"{found.worse.mean:.0%}", "of the samples got worse", "bad" if found.worse.mean else "")
    for name, text in (
        ("wrong_share", "of a render is wrong, on average"),
        ("healed", "of the wrong places became right"),
        ("harmed", "of the right places became wrong"),
    ):
        if name in found.regions:
            yield _card(f"{found.regions[name].mean:.1%}", text)


def _card(figure: str, text: str, kind: str = "") -> str:
    return f"<div class='card'><b class='{kind}'>{figure}</b><span>{text}</span></div>"


def _kind(gain: float, metric: str = "psnr") -> str:
    better = -gain if metric in LOWER_IS_BETTER else gain
    return "good" if better > 0 else "bad" if better < 0 else ""


def _table(found: Summary) -> str:
    rows = []
    for name, gain in found.gain.items():
        digits = DIGITS.get(name, 4)
        figures = (f"{found.render[name].mean:.{digits}f}", f"{found.repaired[name].mean:.{digits}f}")
        change = f"<span class='{_kind(gain.mean, name)}'>{gain.mean:+.{digits}f}</span>"
        rows.append([NAMES.get(name, name), *figures, change, interval_text(gain, digits)])
    for name, text in (("right", "PSNR where the render is right, dB"), ("wrong", "PSNR where it is wrong, dB")):
        if f"{name}_psnr" in found.regions:
            before, after = (found.regions[f"{name}_{kind}"].mean for kind in ("render_psnr", "psnr"))
            change = f"<span class='{_kind(after - before)}'>{after - before:+.2f}</span>"
            rows.append([text, f"{before:.2f}", f"{after:.2f}", change, ""])
    note = (
        f"<p class='soft'>Against the photograph. The interval holds the mean gain with a probability of {LEVEL:.0%}, "
        f"over {found.drawn} drawn again and again{_few(found)}. A place is wrong where the error, averaged over "
        f"{WINDOW}x{WINDOW} pixels, is {WRONG_FROM:.0%} of the range or more.</p>"
    )
    return _rows(["against gt", "render", "repaired", "gain", "interval"], rows) + note


def _few(found: Summary) -> str:
    """A warning where frames of few scenes were drawn as if they had nothing in common."""
    is_sure = found.drawn == "scenes" or not found.scenes
    return (
        "" if is_sure else f"; frames of one scene are alike, and there are {len(found.scenes)} scenes, so it is wider"
    )


def _groups(found: Summary) -> Iterator[str]:
    if found.strengths:
        yield "<h2>By how bad the render is</h2>"
        yield _group_table("renders", found.strengths)
    if found.scenes:
        yield "<h2>By scene</h2>"
        yield _group_table("scene", sorted(found.scenes, key=_gain))


def _group_table(head: str, groups: Sequence[Group]) -> str:
    rows = []
    for group in groups:
        limit = "" if group.below is None else f" (below {group.below:.2f} dB)"
        change = f"<span class='{_kind(_gain(group))}'>{_gain(group):+.2f}</span>"
        figures = (f"{group.render['psnr']:.2f}", f"{group.repaired['psnr']:.2f}", change)
        name = html.escape(group.name + limit)
        rows.append([name, str(group.samples), *figures, f"{group.worse_share:.0%}"])
    return _rows([head, "samples", "render, dB", "repaired, dB", "gain", "got worse"], rows)


def _gain(group: Group) -> float:
    return group.repaired["psnr"] - group.render["psnr"]


def _rows(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    first = "".join(f"<th>{cell}</th>" for cell in head)
    rest = "".join(f"<tr>{''.join(f'<td>{cell}</td>' for cell in row)}</tr>" for row in rows)
    return f"<div class='scroll'><table><tr>{first}</tr>{rest}</table></div>"


def _curves(metrics: Mapping[str, Series]) -> Iterator[str]:
    loss, psnr = metrics.get("train/loss", {}), metrics.get("val/psnr", {})
    charts = []
    if len(loss) > 1:
        charts.append(("Training loss, and its mean over a twentieth of the run", loss_curve(loss)))
    if len(psnr) > 1:
        lines = {"second": metrics.get("val/render_psnr", {}), "first": psnr}
        text = "PSNR at validation, dB; dashed: of the renders"
        charts.append((text, chart("PSNR at validation by step", lines)))
    if charts:
        yield "<h2>Training</h2>"
        yield "<div class='charts'>"
        yield from (f"<figure>{drawing}<figcaption>{text}</figcaption></figure>" for text, drawing in charts)
        yield "</div>"


def _case(sample: Shown) -> str:
    """Slider between render and repaired, a switch from repaired to gt, and gt and cond below."""
    judged = sample.judged
    name = html.escape(judged.key)
    compared = [
        _img(sample, "repaired", "after"),
        _img(sample, "render", "before"),
        "<input type='range' min='0' max='100' value='50' step='0.5'",
        f" aria-label='share of the render of {name} that is shown'>",
        "<span class='tag left'>render</span><span class='tag right'>repaired</span>",
    ]
    return (
        f"<article class='case'><header><h3>{name}</h3><span class='{_kind(judged.gain)}'>{judged.gain:+.2f} dB</span>"
        f"<span class='soft'>{_figures(judged)}</span></header><div class='compare'>{''.join(compared)}</div>"
        "<div class='views'><button data-view='repaired' aria-pressed='true'>repaired</button>"
        "<button data-view='gt' aria-pressed='false'>photograph</button></div><div class='beside'>"
        f"<figure>{_img(sample, 'gt', 'gt')}<figcaption>photograph (gt)</figcaption></figure>"
        f"<figure>{_img(sample, 'cond', 'cond')}<figcaption>reference (cond)</figcaption></figure></div></article>"
    )


def _figures(judged: Judged) -> str:
    """What each metric was and is, and the scene."""
    changes = []
    for name, before in judged.render.items():
        digits = DIGITS.get(name, 3)
        changes.append(f"{NAMES.get(name, name)} {before:.{digits}f} to {judged.repaired[name]:.{digits}f}")
    return html.escape(" · ".join(["; ".join(changes), judged.scene] if judged.scene else ["; ".join(changes)]))


def _img(sample: Shown, view: str, kind: str) -> str:
    file = sample.pictures[view]
    width, height = Image.open(io.BytesIO(file)).size
    address = f"data:image/jpeg;base64,{base64.b64encode(file).decode()}"
    return f"<img class='{kind}' alt='{view}' width='{width}' height='{height}' src='{address}'>"


def _usage(model: str, is_pipeline: bool) -> str:
    command = (
        f"refiner-ds repair --model {shlex.quote(model)} --render render.png --cond reference.png --output repaired.png"
    )
    if not is_pipeline:
        return command
    return (
        f"{command}\n\nfrom diffusers import DiffusionPipeline\nfrom PIL import Image\n\n"
        f'refiner = DiffusionPipeline.from_pretrained("{model}", trust_remote_code=True)\n'
        'repaired = refiner(Image.open("render.png"), Image.open("reference.png")).images[0]'
    )


def _configuration(settings: Mapping[str, Any]) -> Iterator[str]:
    if not settings:
        return
    yield "<h2>Configuration</h2>"
    for section in ("train", "deepspeed", "versions"):
        if section in settings:
            rows = [[html.escape(name), html.escape(str(value))] for name, value in _flat(settings[section])]
            yield f"<details><summary>{section}</summary>{_rows(['setting', 'value'], rows)}</details>"


def _flat(settings: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in settings.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield prefix + name, value
