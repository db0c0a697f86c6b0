"""`refiner-ds status`: how a run is doing, by what lies in its output folder, from any host that sees that."""

import math
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from refiner_ds.checkpoint.layout import complete_checkpoints
from refiner_ds.config.verbs.models import Status
from refiner_ds.errors import PREEMPTED, UserError
from refiner_ds.state import STATE, State, read_state
from refiner_ds.tracking.journal import Line, read_lines
from refiner_ds.tracking.pace import pace_of
from refiner_ds.tracking.shipped import Shipped, read_shipped
from refiner_ds.train.best import best_metric, best_steps
from refiner_ds.train.lock import is_held
from refiner_ds.units import size_text, time_text
from refiner_ds.verbs.answer import answer, require_answerable

RECENT = 100
"""Steps over which losses are averaged."""
LOST = "lost"
"""State of a run whose file says that it is running while nobody holds its folder."""
PATIENCE_SECONDS, PATIENCE = 60.0, 5
"""A run that tells nothing for so long, and for so many times its longest silence of late, is told to stand still."""
PATIENCE_AT_START_SECONDS = 1800.0
"""The same until there is a pace: a network that is compiled takes minutes before its first step."""
PATIENCE_IN_VALIDATION_SECONDS = 600.0
"""The same where it validates, which tells after each sample of a rank that it goes on."""
EXIT_CODES = {"running": 0, "finished": 0, "preempted": PREEMPTED, "failed": 1, LOST: 1}


def run(options: Status) -> int:
    """0 for a run that goes on or is finished, 75 for a preempted one, 1 for one that has failed or is lost."""
    require_answerable(options.json)
    told = status(options.run, time.time())
    answer("\n".join(lines(told)), told, options.json)
    return EXIT_CODES[told["state"]]


def status(folder: Path, now: float) -> dict[str, Any]:
    """All that a run's folder tells, in plain values; what it does not tell is left out.

    Args:
        now: in seconds since 1970.

    Raises:
        UserError: the folder holds no run.
    """
    state = read_state(folder)
    if state is None:
        raise UserError(
            f"{folder} tells of no run ({STATE} is not there), so nothing is known of one; name the --output_dir of a "
            "run that has been started."
        )
    told = {"run": str(folder), **_of_state(folder, state)}
    journal = _counted(state, [*read_lines(folder)])
    told |= _of_training([line for line in journal if "train/loss" in line.values], state, told["state"], now)
    told |= _of_validations(folder, journal)
    if found := complete_checkpoints(folder):
        told["checkpoints"] = {"newest": found[-1].step, "steps": [checkpoint.step for checkpoint in found]}
    if (shipped := read_shipped(folder)) and shipped.run_id:
        told["tracking"] = _of_tracking(folder, shipped)
    return told


def _of_state(folder: Path, state: State) -> dict[str, Any]:
    told = dict(vars(state))
    if state.state == "running" and not is_held(folder):
        told |= {"state": LOST, "cause": "it was killed, or its host has failed, before it could tell why"}
    return told


def _counted(state: State, journal: list[Line]) -> list[Line]:
    """Without the lines of steps that were made and then gone back behind, as from an older checkpoint."""
    if not journal:
        return []
    last = journal[-1]
    newest = state.step if state.state == "running" and last.at < state.started else last.step
    return [line for line in journal if line.step <= newest]


def _of_training(training: Sequence[Line], state: State, word: str, now: float) -> dict[str, Any]:
    told: dict[str, Any] = {}
    if training:
        told["step"] = max(state.step, training[-1].step) if word != "finished" else state.step
        losses = {line.step: line.values["train/loss"] for line in training}
        recent = [losses[step] for step in sorted(losses)[-2 * RECENT :]]
        told["loss"] = _mean(recent[-RECENT:])
        if len(recent) > RECENT:
            told["loss_before"] = _mean(recent[:-RECENT])
    for name in ("pairs_per_s", "mfu", "data_wait", "memory_gb", "rank_spread", "skipped_steps", "bad_samples"):
        values = [line.values[f"train/{name}"] for line in training if f"train/{name}" in line.values]
        told |= {name: values[-1]} if values else {}
    return told | (_of_pace(training, state, now) if word == "running" else {})


def _of_pace(training: Sequence[Line], state: State, now: float) -> dict[str, Any]:
    """How long it takes still, and for how long nothing has been told; the first takes two readings of this start."""
    pace = pace_of(training, state.started)
    validates = state.doing == "validating"
    told = state.changed if validates else max(pace.at if pace else state.started, state.doing_since)
    silent = now - told
    if not (pace and pace.seconds):
        patience = PATIENCE_IN_VALIDATION_SECONDS if validates else PATIENCE_AT_START_SECONDS
        return {"seconds_silent": silent, "stands_still": silent > patience}
    patience = PATIENCE_IN_VALIDATION_SECONDS if validates else max(PATIENCE_SECONDS, PATIENCE * pace.silence)
    return {
        "seconds_per_step": pace.seconds,
        "seconds_left": max(0.0, (state.steps - pace.step) * pace.seconds - (now - pace.at)),
        "seconds_silent": silent,
        "stands_still": silent > patience,
    }


def _of_validations(folder: Path, journal: Sequence[Line]) -> dict[str, Any]:
    """The last validation's figures, and the step of the best by the metric that the run takes for that."""
    found = {line.step: line.values for line in journal if any(name.startswith("val/") for name in line.values)}
    if not found:
        return {}
    metric, last = best_metric(folder), max(found)
    by_step = {step: values[metric] for step, values in found.items() if metric in values}
    best = best_steps(by_step, metric)
    told = {"step": last, "best_step": best[0] if best else None, "metric": metric}
    return {"validation": {**told, "best": by_step[best[0]] if best else None, **found[last]}}


def _of_tracking(folder: Path, shipped: Shipped) -> dict[str, Any]:
    return {"uri": shipped.uri, "run_id": shipped.run_id, "bytes_behind": shipped.behind(folder)}


def _mean(values: Sequence[float]) -> float | None:
    finite = [value for value in values if math.isfinite(value)]
    return sum(finite) / len(finite) if finite else None


def lines(told: dict[str, Any]) -> Iterator[str]:
    """What a person wants to know of it."""
    word, when = told["state"], time.strftime("%Y-%m-%d %H:%M", time.localtime(told["changed"]))
    since = f"since {time_text(time.time() - told['started'])}" if word == "running" else f"last told {when}"
    doing = ", validating" if word == "running" and told["doing"] == "validating" else ""
    yield f"{told['run']}: {word}{doing}, {since}, process {told['process']} on {told['host']}"
    if told["cause"]:
        yield _line("cause", told["cause"])
    share = f" ({told['step'] / told['steps']:.0%})" if told["steps"] else ""
    left = f", about {time_text(told['seconds_left'])} left" if "seconds_left" in told else ""
    yield _line("step", f"{told['step']:,} of {told['steps']:,}{share}{left}")
    if told.get("stands_still"):
        yield _line("warning", f"nothing has been told for {time_text(told['seconds_silent'])}; see {told['run']}/logs")
    if told.get("loss") is not None:
        before = f", {told['loss_before']:.4f} before" if told.get("loss_before") is not None else ""
        yield _line("loss", f"{told['loss']:.4f} over the last {RECENT} steps at most{before}")
    if "mfu" in told:
        yield _line(
            "speed",
            f"{told['pairs_per_s']:.2f} pairs/s, {told['mfu']:.0%} of peak, {told['data_wait']:.0%} waiting for data, "
            f"{told['memory_gb']:.1f} GB",
        )
    if told.get("skipped_steps") or told.get("bad_samples"):
        yield _line(
            "note", f"{told['skipped_steps']:.0f} updates skipped, {told['bad_samples']:.0f} broken samples replaced"
        )
    if validation := told.get("validation"):
        yield _line("val", _validation_text(validation))
    if checkpoints := told.get("checkpoints"):
        yield _line("saved", f"step {checkpoints['newest']:,}, {len(checkpoints['steps'])} complete checkpoints")
    if tracking := told.get("tracking"):
        behind = tracking["bytes_behind"]
        rest = f"{size_text(behind)} of metrics.jsonl not sent yet" if behind else "all sent"
        yield _line("MLflow", f"run {tracking['run_id']} at {tracking['uri']}, {rest}")
    if word in ("preempted", "failed", LOST) and told.get("checkpoints"):
        yield _line("next", f"the same command continues from step {told['checkpoints']['newest']:,}")


def _line(name: str, text: str) -> str:
    return f"  {name:<8}{text}"


def _validation_text(validation: dict[str, Any]) -> str:
    gain = validation["val/psnr"] - validation["val/render_psnr"]
    best = validation["best_step"]
    metric = validation["metric"]
    if best is None:
        of_best = ""
    elif best == validation["step"]:
        of_best = f"; the best so far by {metric} ({validation['best']:.4g})"
    else:
        of_best = f"; the best by {metric} was step {best:,} ({validation['best']:.4g})"
    return (
        f"step {validation['step']:,}: PSNR {validation['val/psnr']:.2f} dB ({gain:+.2f} to the render), "
        f"SSIM {validation['val/ssim']:.4f}{of_best}"
    )
