"""`refiner-ds bench checkpoint`: how long training stands still for a checkpoint, on this machine."""

import math
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import torch
from torch import nn

from refiner_ds.bench.saving import at_once, in_background, measured, no_save, waited_for
from refiner_ds.bench.saving_report import BACKGROUND, DEEPSPEED, NO_SAVE, WAITED, as_json, as_markdown
from refiner_ds.checkpoint.place import Place
from refiner_ds.checkpoint.retention import Keep
from refiner_ds.checkpoint.store import Saver
from refiner_ds.config.deepspeed import resolve
from refiner_ds.config.training import Train
from refiner_ds.config.verbs.benches import BenchCheckpoint
from refiner_ds.errors import UserError, note
from refiner_ds.folders import require_free
from refiner_ds.train.about import versions
from refiner_ds.train.engine import Engine, start_process_group
from refiner_ds.train.meeting import gathered, leave_process_group
from refiner_ds.verbs.measured import command_of, machine_of, prepare_files, tell
from refiner_ds.verbs.plan import STANDARD
from refiner_ds.verbs.progress import progress_bar
from refiner_ds.world import World

LAYERS = 12
SAMPLES = 16
"""Rows of a micro-batch."""
DISK_BYTES = 40
"""For each weight, at most: two checkpoints of ours, one that is written beside the one that it replaces, or one of
ours and DeepSpeed's, with the weights in two precisions."""


def run(options: BenchCheckpoint) -> None:
    """Measures, and prints the tables."""
    if min(options.parameters, options.rounds) < 1:
        raise UserError(
            f"--parameters {options.parameters} and --rounds {options.rounds} must be at least 1; else nothing is "
            "saved."
        )
    prepare_files(options.json, options.markdown)
    with _folder(options) as folder:
        device = start_process_group(World(), timedelta(minutes=30))
        try:
            training = _Training(options.parameters, device, folder)
            found, sizes, what = _measured(training, options.rounds)
        finally:
            leave_process_group()
    about = {
        "command": command_of("bench checkpoint", options),
        "machine": machine_of(device),
        "date": date.today().isoformat(),
        "what": what,
        "versions": versions(),
    }
    tell(as_markdown(found, sizes, about), as_json(found, sizes, about), options.json, options.markdown)


class _Training:
    """A plain network of linear layers under ZeRO-2 on one rank, which trains, and saves into a folder."""

    def __init__(self, parameters: int, device: torch.device, folder: Path) -> None:
        width = max(1, round(math.sqrt(parameters / LAYERS)))
        network = nn.Sequential(*(nn.Linear(width, width, bias=False) for _ in range(LAYERS)))
        self.weights = LAYERS * width**2
        flags = Train("", "", folder, train_batch_size=1, gradient_accumulation_steps=1,
                      mixed_precision="bf16" if device.type == "cuda" else "no")  # fmt: skip
        self.resolved = resolve(STANDARD, flags, 1)
        self.engine = Engine(network, self.resolved, device)
        self.engine.set_learning_rate(1e-4)
        self._batch = torch.randn(SAMPLES, width, device=device, dtype=self.engine.dtype)
        self.saver = Saver(folder, Place(0, (0,)), gathered, Keep(last=1), {}, note)
        self.folder = folder

    def step(self) -> None:
        """One update of the weights, to its end also on a GPU."""
        self.engine.backward(self.engine.network(self._batch).square().mean())
        self.engine.step()
        self._wait()

    def begin(self) -> None:
        """Begins a checkpoint, each of another step."""
        self.saver.begin(self.saver.step + 1, self.engine.snapshot, {"num_ranks": 1})

    @property
    def is_writing(self) -> bool:
        """Whether it is on its way to the disk."""
        return self.saver.is_writing

    def finish(self) -> None:
        """Commits it.

        Raises:
            UserError: it could not be written.
        """
        if not self.saver.finish():
            raise UserError(f"nothing can be saved in {self.folder}, so nothing is measured; name another --output.")

    def save_by_deepspeed(self) -> None:
        """What training on DeepSpeed's own checkpoints would wait for; it does not bring them to the disk."""
        self.engine.wrapper.save_checkpoint(str(self.folder / "deepspeed"), tag="saved")

    def settle(self) -> None:
        """Ends deletions and writing that earlier saves have left to the system, and takes DeepSpeed's away."""
        self.saver.close()
        shutil.rmtree(self.folder / "deepspeed", ignore_errors=True)
        os.sync()
        self._wait()

    def _wait(self) -> None:
        if self.engine.device.type == "cuda":
            torch.cuda.synchronize()


def _measured(training: _Training, rounds: int) -> tuple[dict[str, Any], dict[str, int], str]:
    """Figures and bytes by way, and what was measured in words."""
    load = os.getloadavg()[0]
    training.step()
    first = waited_for(training)  # takes the memory that later ones use again
    (ours,) = (_bytes_in(path) for path in training.folder.glob("checkpoint-*"))
    training.save_by_deepspeed()
    sizes = {BACKGROUND: ours, WAITED: ours, DEEPSPEED: _bytes_in(training.folder / "deepspeed")}
    ways = {
        NO_SAVE: lambda: no_save(training.step),
        BACKGROUND: lambda: in_background(training, training.step),
        WAITED: lambda: waited_for(training),
        DEEPSPEED: lambda: at_once(training.save_by_deepspeed),
    }
    with progress_bar() as telling:
        found = measured(ways, rounds, training.settle, telling)
    training.settle()
    precision = {"no": "fp32"}.get(training.resolved.precision, training.resolved.precision)
    what = (
        f"{training.weights:,} weights, AdamW, ZeRO-{training.resolved.stage}, {precision}, one rank; the first save, "
        f"which takes its memory, {first.stall_seconds:.2f} s and not counted; load average {load:.1f} before; median "
        f"[min..max] over rounds: {rounds}"
    )
    training.engine.close()
    return found, sizes, what


@contextmanager
def _folder(options: BenchCheckpoint) -> Iterator[Path]:
    """Yields a folder to save into, with room on its disk; what is saved there goes."""
    if options.output:
        require_free(options.output, "the bench would mix its files with them")
        options.output.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="refiner-ds-bench-", dir=options.output) as name:
        free, needed = shutil.disk_usage(name).free, DISK_BYTES * options.parameters
        if free < needed:
            raise UserError(
                f"--parameters {options.parameters} take {needed / 1e9:.1f} GB of disk and {name} has {free / 1e9:.1f} "
                "free, so nothing could be saved; take fewer, or name another --output."
            )
        yield Path(name)


def _bytes_in(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
