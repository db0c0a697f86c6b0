"""The best checkpoint is exported beside training: one process at a time, the newest best next, never in its way."""

import contextlib
import json
import os
import subprocess
import sys
import time

import pytest
import torch

from refiner_ds.checkpoint.layout import name_of
from refiner_ds.checkpoint.place import Place
from refiner_ds.checkpoint.snapshot import AVERAGE
from refiner_ds.errors import UserError
from refiner_ds.refiners.unclip.refiner import UnclipRefiner
from refiner_ds.train import best_export
from refiner_ds.train.best_export import BestExport, require_shared
from refiner_ds.world import World
from tests.checkpoints import weights_in
from tests.evaluate.alexnet import write_alexnet
from tests.train.launch import ZERO2, start, torchrun


class Run:
    """A run's folder with complete checkpoints of no content, and exports that last until they are let go."""

    def __init__(self, folder, monkeypatch, steps):
        self.folder, self.in_use, self.told, self.started, self.referred = folder, set(), [], [], []
        for step in steps:
            (folder / name_of(step)).mkdir()
            (folder / name_of(step) / "commit.json").write_text(json.dumps({"step": step, "number": step, "files": {}}))
        monkeypatch.setattr(best_export, "_in_background", self._begin)
        self.exports = BestExport(folder, self.in_use, self.told.append, self.referred.append)

    def _begin(self, command, folder):
        self.started.append(command)
        wait = "import sys; sys.exit(int(sys.stdin.readline()))"
        return subprocess.Popen([sys.executable, "-c", wait], stdin=subprocess.PIPE, text=True)

    def let_go(self, code=0):
        """Ends the export that runs with this exit code."""
        self.exports._process.communicate(f"{code}\n", timeout=30)

    @property
    def steps(self):
        """Of what exports were started for."""
        return [int(command[4].rpartition("-")[2]) for command in self.started]


def test_one_runs_at_a_time_and_of_those_that_wait_only_the_newest_is_next(tmp_path, monkeypatch):
    run = Run(tmp_path, monkeypatch, [1, 2, 3])
    for step in (1, 2, 3):
        run.exports.want(step)
        run.exports.poll(is_saving=False)
    assert run.steps == [1] and run.in_use == {1, 3}
    run.let_go()
    run.exports.poll(is_saving=False)
    assert run.steps == [1, 3] and run.in_use == {3}
    assert run.told == [f"exported the best checkpoint, of step 1, into {tmp_path / 'best'}"]
    assert run.started[1][1:] == [
        *("-m", "refiner_ds", "export", str(tmp_path / "checkpoint-3"), str(tmp_path / "best"), "--replace")
    ]
    run.let_go()
    run.exports.finish(10)
    assert not run.in_use and len(run.told) == 2 and run.referred == [1, 3]


def test_it_starts_once_the_checkpoint_is_complete_and_not_at_all_where_that_failed(tmp_path, monkeypatch):
    run = Run(tmp_path, monkeypatch, [1])
    run.exports.want(1)
    run.exports.poll(is_saving=True)
    assert not run.steps and run.in_use == {1}
    run.exports.poll(is_saving=False)
    assert run.steps == [1]
    run.let_go()
    run.exports.want(2)
    run.exports.poll(is_saving=False)
    assert run.steps == [1] and not run.in_use


def test_a_failure_is_told_and_the_next_best_is_exported_all_the_same(tmp_path, monkeypatch):
    run = Run(tmp_path, monkeypatch, [1, 2])
    run.exports.want(1)
    run.exports.poll(is_saving=False)
    run.let_go(code=2)
    run.exports.want(2)
    run.exports.poll(is_saving=False)
    (told,) = run.told
    assert "warning: the best checkpoint, of step 1, could not be exported (exit code 2, see " in told
    assert "training goes on" in told
    assert run.steps == [1, 2]
    run.let_go()
    run.exports.finish(10)


def test_the_end_waits_for_so_long_and_tells_what_is_left(tmp_path, monkeypatch):
    run = Run(tmp_path, monkeypatch, [1, 2])
    run.exports.want(1)
    run.exports.poll(is_saving=False)
    run.exports.want(2)
    before = time.monotonic()
    run.exports.finish(0.5)
    assert 0.4 < time.monotonic() - before < 10
    assert "of step 1, is still being exported by process" in run.told[0]
    assert f"refiner-ds export {tmp_path}/checkpoint-2 {tmp_path}/best --replace" in run.told[1]
    run.let_go()


def test_what_a_killed_run_had_not_exported_is_caught_up_with(tmp_path, monkeypatch):
    run = Run(tmp_path, monkeypatch, [1, 2])
    run.exports.catch_up([])
    assert not run.in_use
    run.exports.catch_up([2])
    assert run.in_use == {2}
    (tmp_path / "best").mkdir()
    (tmp_path / "best" / "export.json").write_text('{"step": 1}')
    again = BestExport(tmp_path, set(), run.told.append, run.referred.append)
    again.catch_up([1])
    again.poll(is_saving=False)
    assert not run.steps and run.referred == [1], "an export that has outlived its run is known from now on"


def test_a_run_that_is_asked_to_stop_meanwhile_waits_no_longer(tmp_path, monkeypatch):
    run = Run(tmp_path, monkeypatch, [1])
    run.exports.want(1)
    began = time.monotonic()
    run.exports.finish(60, lambda: time.monotonic() - began > 0.5)
    assert 0.5 < time.monotonic() - began < 10 and "is still being exported by process" in run.told[-1]
    run.let_go()


def test_it_has_the_lowest_priority_no_gpu_and_a_session_of_its_own(tmp_path):
    look = "import os; print(os.getsid(0) == os.getpid(), repr(os.environ['CUDA_VISIBLE_DEVICES']), flush=True)"
    process = best_export._in_background([sys.executable, "-c", f"{look}; import time; time.sleep(20)"], tmp_path)
    try:
        assert os.getpriority(os.PRIO_PROCESS, process.pid) == best_export.LOWEST_PRIORITY
        deadline = time.monotonic() + 15
        while not (tmp_path / "export.log").read_text() and time.monotonic() < deadline:
            time.sleep(0.05)
        assert (tmp_path / "export.log").read_text() == "True ''\n"
    finally:
        process.kill()
        process.wait()


def test_folders_of_each_nodes_own_are_refused():
    with pytest.raises(UserError, match=r"--export_best needs whole checkpoints in one folder.*leave it out"):
        require_shared(Place(0, (0, 1)), World(rank=0, size=4))
    require_shared(Place(0, (0, 1)), World(rank=0, size=2))


@pytest.mark.slow
def test_a_run_leaves_its_best_validation_as_a_whole_refiner(shards, tiny_base, tmp_path):
    settings = {
        "--shards": shards,
        "--pretrained_model_name_or_path": tiny_base,
        "--output_dir": tmp_path / "run",
        "--deepspeed_config": ZERO2,
        "--buckets": "1.0:64x64,1.5:96x64",
        "--train_batch_size": 2,
        "--gradient_accumulation_steps": 1,
        "--learning_rate": 2e-3,
        "--validation_epochs": 1,
        "--validation_steps": 1,
        "--validation_guidance_scale": 1,
        "--max_train_steps": 7,
        "--checkpointing_steps": 100,
        "--checkpoints_total_limit": 1,
        "--dataloader_num_workers": 0,
        "--use_ema": None,
        "--export_best": None,
        "--best_metric": "lpips",
        "--tracking_uri": f"sqlite:///{tmp_path}/mlflow.db",
    }
    write_alexnet(tmp_path / "torch" / "hub")
    done = start(torchrun(), settings, TORCH_HOME=str(tmp_path / "torch"), HF_HOME=str(tmp_path / "hub"))
    assert done.returncode == 0, done.stdout[-3000:]
    assert done.stdout.count("no DINO: ") == 1 and "no LPIPS" not in done.stdout
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    figures = {line["step"]: line["val/lpips"] for line in lines if "val/lpips" in line}
    best = min(figures, key=lambda step: (figures[step], -step))
    assert len(figures) > 1
    record = _record_of(tmp_path / "run", best)
    assert (record["step"], record["weights"]) == (best, "ema")
    assert record["figures"]["val/lpips"] == figures[best]
    exported = UnclipRefiner(str(tmp_path / "run" / "best")).network.state_dict()
    if best == 7:
        averaged = weights_in(tmp_path / "run" / name_of(best), AVERAGE)
        assert all(torch.equal(exported[name], weight) for name, weight in averaged.items())
    assert (tmp_path / "run" / "checkpoint-7" / "commit.json").exists()


def _record_of(run, step):
    """What the export of a step says of itself, once it is there: it may go on after the run."""
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        with contextlib.suppress(OSError):
            if (record := json.loads((run / "best" / "export.json").read_text()))["step"] == step:
                return record
        time.sleep(0.5)
    raise AssertionError((run / "export.log").read_text())
