"""What a run does at the times of the training loop: figures, checkpoints, validation, and whether it goes on."""

import json
import time
from collections.abc import Sequence
from contextlib import nullcontext
from typing import Any

from torch import Tensor

from refiner_ds.checkpoint.layout import name_of
from refiner_ds.checkpoint.place import Place
from refiner_ds.checkpoint.retention import Keep
from refiner_ds.checkpoint.store import Saver
from refiner_ds.data.samples import Samples
from refiner_ds.data.stream import Stream
from refiner_ds.errors import UserError
from refiner_ds.evaluate.perceptual import Perceptual
from refiner_ds.evaluate.text import lines_of
from refiner_ds.evaluate.validation import metrics_of, validate
from refiner_ds.refiners.protocol import Sampling
from refiner_ds.refiners.unclip.refiner import UnclipRefiner
from refiner_ds.state import StateFile
from refiner_ds.tracking.journal import Journal, read_metrics
from refiner_ds.train.about import settings_of
from refiner_ds.train.best import LEAST_IS_BEST, best_steps
from refiner_ds.train.best_export import BEST, SECONDS, BestExport
from refiner_ds.train.console import Console
from refiner_ds.train.engine import Engine
from refiner_ds.train.guard import Guard
from refiner_ds.train.plan import Plan
from refiner_ds.train.side import SideChannel
from refiner_ds.train.stopping import Stopping

BASE = "base_fingerprint"
"""In a commit: tells the base that was trained."""
NONFINITE = "nonfinite_steps"
"""In a commit, and as train/nonfinite_steps in the journal: updates with NaN or infinity that were skipped so far."""
STALL = "train/checkpoint_stall_s"
"""Metric of a step: seconds that training stood still for its checkpoint, when it was begun and when committed."""


class RunHooks:
    """The hooks of one run. All ranks have one and call its methods alike; rank 0 alone has a journal."""

    def __init__(
        self,
        plan: Plan,
        refiner: UnclipRefiner,
        engine: Engine,
        sampling: Sampling,
        side: SideChannel,
        place: Place,
        stopping: Stopping,
        console: Console,
        journal: Journal | None,
        state: StateFile,
        perceptual: Sequence[Perceptual],
    ) -> None:
        """perceptual: metrics of validation beside PSNR and SSIM, the same on all ranks."""
        self._plan, self._refiner, self._engine, self._sampling = plan, refiner, engine, sampling
        self._side, self._stopping, self._console, self._journal, self._state = side, stopping, console, journal, state
        flags = plan.flags
        self._held_out = Samples.of(plan.shards, "val", plan.samples.buckets, flags.seed)
        rows = self._held_out.rows.tolist() if plan.times.validation and plan.world.is_main else []
        self._scenes: list[str] = side.gathered(plan.shards.scenes(rows, console.say) if rows else [])[0]
        self._metric, self._perceptual = f"val/{flags.best_metric}", perceptual
        known = read_metrics(flags.output_dir).get(self._metric, {}) if journal else {}
        self._figures: dict[int, float] = side.gathered(known)[0]
        is_largest = self._metric not in LEAST_IS_BEST
        keep = Keep(flags.checkpoints_total_limit, flags.keep_best, flags.keep_every, is_largest)
        self.saver = Saver(flags.output_dir, place, side.gathered, keep, self._figures, console.say)
        stream = Stream(
            plan.samples, plan.order, plan.resolved.micro_batch_size, place.rank, plan.world.size, workers=0
        )
        facts = {"seed": flags.seed, "precision": plan.resolved.precision}
        count = plan.checkpoint.commit.get(NONFINITE, 0) if plan.checkpoint else 0
        self._guard = Guard(
            refiner, engine, stream, place, side.gathered, flags.output_dir, facts, flags.max_nonfinite_steps, count
        )
        self._exports: BestExport | None = None
        if flags.export_best and journal:  # rank 0 alone exports
            self._exports = BestExport(
                flags.output_dir, self.saver.in_use, console.say, lambda step: journal.reference(step, "export", BEST)
            )
            self._exports.catch_up(best_steps(self._figures, self._metric))
        self._stall = 0.0
        self._facts = {
            **plan.identity,
            **plan.optimizer_cut,
            BASE: refiner.base_fingerprint,
            "settings": json.loads(json.dumps(settings_of(plan), default=str)),
        }

    def begin(self, step: int) -> None:
        """Lets the shards' cache, and whoever watches the run, know which step is made."""
        self._plan.shards.reach(step)
        if self._journal:
            self._state.reach(step)

    def goes_on(self) -> bool:
        """Exchanges signs with the other ranks, and commits a checkpoint that all of them have written."""
        has_written = self.saver.is_pending and not self.saver.is_writing
        if self._journal:
            self._state.beat()
        stops, all_have_written = self._side.beat(bool(self._stopping.cause), has_written)
        if all_have_written:
            self._finish()
        if self._exports:
            self._exports.poll(self.saver.is_pending)
        return not stops

    def log(self, step: int, metrics: dict[str, float], slowest: str) -> None:
        """Shows the figures of a step, and keeps them."""
        self._console.step(step, metrics, slowest)
        self._note(step, metrics)

    def replaced(self, new: list[str], count: int) -> None:
        """Tells of broken samples.

        Raises:
            UserError: there are more than were allowed.
        """
        for sentence in new:
            self._console.say(f"replaced: {sentence}")
        allowed = self._plan.flags.max_bad_samples
        if count > allowed:
            raise UserError(
                f"{count} broken samples are more than --max_bad_samples {allowed}, the newest: "
                f"{' '.join(new)} Mend the shards, or allow more."
            )

    def not_applied(self, step: int, micro_losses: Sequence[Tensor]) -> None:
        """Tells of an update with NaN or infinity, or ends the run after a checkpoint of the steps before it.

        Raises:
            UserError: there are more of them than were allowed, or none is possible any more.
        """
        finding = self._guard.look(step, micro_losses)
        if finding is None:
            return
        if finding.ends:
            self._engine.take_back()
            if step > self._plan.times.first or self._plan.checkpoint is None:
                self.save(step)
            self._finish()
            raise UserError(finding.sentence)
        self._console.say(finding.sentence)
        self._note(step + 1, {f"train/{NONFINITE}": self._guard.count})

    def save(self, done: int) -> None:
        """Begins a checkpoint, unless the newest one is of this very step."""
        if self.saver.step == done:
            return
        self._finish()
        began = time.perf_counter()
        images = done * self._plan.resolved.global_batch_size
        position = {"images_seen": images, "stream": {"next_step": done, "next_position": images}}
        counted = {NONFINITE: self._guard.count}
        self.saver.begin(done, self._engine.snapshot, {**self._facts, **position, **counted})
        self._stall = time.perf_counter() - began

    def validate(self, done: int) -> None:
        """Validates on the held-out split; what is among the best is saved, where best ones are kept."""
        flags = self._plan.flags
        folder = flags.output_dir / "validation" / f"step-{done:08d}"
        with self._state.validating() if self._journal else nullcontext(), self._engine.averaged():
            found = validate(
                self._refiner, self._held_out, self._plan.world, self._sampling, flags.seed,
                self._side.gathered, folder, self.goes_on, self._perceptual, self._scenes,
            )  # fmt: skip
        if found is None:
            return
        figures, pictures = found
        metrics = metrics_of(figures)
        self._console.validation(done, metrics, lines_of(figures))
        self._note(done, metrics)
        for picture in pictures:
            if self._journal:
                self._journal.picture(done, str(picture.relative_to(flags.output_dir)))
        self._figures[done] = metrics[self._metric]
        best = best_steps(self._figures, self._metric, max(flags.keep_best, flags.export_best))
        if self._exports and best[:1] == [done]:
            self._exports.want(done)
        if done in best:
            self.save(done)

    def validate_what_was_missed(self) -> None:
        """Validates at the step that is continued from where that was due, and ended before it was made."""
        times = self._plan.times
        is_due = times.validation and times.first and (times.first % times.validation == 0 or times.first == times.last)
        if is_due and times.first not in self._figures:
            self.saver.step = times.first
            self.validate(times.first)

    def end(self, done: int) -> None:
        """Saves what is not saved yet, and waits until all is on the disk.

        Raises:
            UserError: the last checkpoint could not be written.
        """
        if done > self._plan.times.first or self._plan.checkpoint is None:
            self.save(done)
        if not self._finish():
            raise UserError(
                f"the last checkpoint, of step {done}, could not be written into {self._plan.flags.output_dir}; mend "
                "what is told above, and start the same command: it continues from the newest complete one."
            )
        self.saver.tidy()
        self.saver.close()

    def finish_exports(self, is_finished: bool) -> None:
        """Waits for the export of the best checkpoint, though not where the run was asked to stop."""
        if self._exports:
            self._exports.finish(SECONDS if is_finished else 0.0, lambda: bool(self._stopping.cause))
            self.saver.tidy()
            self.saver.close()

    def _finish(self) -> bool:
        """Commits what is on its way, if anything is; true unless that failed."""
        if not self.saver.is_pending:
            return self.saver.was_committed
        began = time.perf_counter()
        is_committed = self.saver.finish()
        if is_committed and self._journal:
            self._journal.reference(self.saver.step, "checkpoint", name_of(self.saver.step))
        self._note(self.saver.step, {STALL: self._stall + time.perf_counter() - began})
        return is_committed

    def _note(self, step: int, metrics: dict[str, Any]) -> None:
        if self._journal:
            self._journal.metrics(step, metrics)
