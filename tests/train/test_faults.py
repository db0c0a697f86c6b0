"""A run that everything happens to: whatever kills it or damages its files, the same command goes on exactly."""

import json
import os
import re
import signal
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

from refiner_ds.checkpoint.layout import complete_checkpoints
from refiner_ds.errors import UserError
from refiner_ds.folders import require_folder
from refiner_ds.state import read_state
from refiner_ds.train.lock import Lock
from tests.train.launch import REPO, TIMEOUT_SECONDS, ZERO2, launch, losses, start, torchrun

pytestmark = pytest.mark.slow
STEPS = 18
DOCS = REPO / "refiner_ds" / "checkpoint" / "README.md"


@pytest.fixture(scope="module")
def flags(shards, tiny_base, tmp_path_factory):
    """A run of two ranks that saves every second of 18 steps of two micro-batches."""
    return {
        "--shards": shards,
        "--pretrained_model_name_or_path": tiny_base,
        "--deepspeed_config": ZERO2,
        "--buckets": "1.0:64x64,1.5:96x64",
        "--train_batch_size": 1,
        "--gradient_accumulation_steps": 2,
        "--learning_rate": 2e-3,
        "--max_train_steps": STEPS,
        "--checkpointing_steps": 2,
        "--checkpoints_total_limit": 2,
        "--validation_epochs": 0,
        "--dataloader_num_workers": 1,
        "--logging_steps": 1,
        "--use_ema": None,
        "--tracking_uri": f"sqlite:///{tmp_path_factory.mktemp('mlflow')}/mlflow.db",
    }


@pytest.fixture(scope="module")
def whole(flags, tmp_path_factory):
    """Losses of a run that nothing happens to."""
    folder = tmp_path_factory.mktemp("runs") / "whole"
    done = start(torchrun(), {**flags, "--output_dir": folder})
    assert done.returncode == 0, done.stdout[-3000:]
    return losses(folder)


@dataclass(frozen=True)
class Fault:
    """What happens to one attempt, the outcome that is promised, and the newest complete checkpoint after it.

    `kill` is for tests/train/faulty.py; `signal` goes to "launcher", "rank" or "group" once a step's loss is there;
    `damage` is done to the newest checkpoint afterwards, and `says` is what the next attempt tells.
    """

    what: str
    outcome: str
    kill: str = ""
    newest: int = 0
    signal: tuple[str, int, int] = ("", 0, 0)
    damage: Callable[[Path], object] = lambda path: None
    says: str = ""


def flip(path: Path) -> None:
    with (path / "rank-00001.safetensors").open("r+b") as file:
        file.seek(-4000, os.SEEK_END)
        byte = file.read(1)[0]
        file.seek(-4000, os.SEEK_END)
        file.write(bytes([byte ^ 4]))


FELL_BACK = "told, kept as damaged-checkpoint-N, and the one before is continued"
FAULTS = [
    Fault("a rank is killed within a step", "continues from the newest checkpoint", kill="step:1:7", newest=2),
    Fault("a rank is killed while it writes a checkpoint", "continues from the one before", kill="write:1:4", newest=2),
    Fault(
        "rank 0 is killed when all parts are written and nothing is committed",
        "continues from the one before",
        kill="commit:0:4",
        newest=2,
    ),
    Fault(
        "rank 0 is killed between the commit and its rename",
        "the next start renames it and continues from it",
        kill="rename:0:4",
        newest=2,
        says="continuing from .*checkpoint-4",
    ),
    Fault(
        "rank 0 is killed while it deletes an old checkpoint",
        "continues from the newest; the rest of the old one goes",
        kill="retention:0:2",
        newest=6,
    ),
    Fault(
        "SIGTERM to the launcher, then one bit of the newest checkpoint flips",
        f"saved at once; the damage is {FELL_BACK}",
        signal=("launcher", signal.SIGTERM, 8),
        damage=flip,
        says=r"is no whole checkpoint \(rank-00001.safetensors is not what was written",
    ),
    Fault(
        "SIGUSR1 to one rank, then a file of the newest checkpoint is cut off",
        f"saved at once by all; the damage is {FELL_BACK}",
        signal=("rank", signal.SIGUSR1, 10),
        damage=lambda path: os.truncate(path / "rank-00000.safetensors", 1000),
        says=r"is no whole checkpoint \(rank-00000.safetensors has 1000 bytes of \d+",
    ),
    Fault(
        "SIGINT to all, then a file of the newest checkpoint is lost",
        f"saved at once; the damage is {FELL_BACK}",
        signal=("group", signal.SIGINT, 12),
        damage=lambda path: (path / "rank-00001.safetensors").unlink(),
        says=r"is no whole checkpoint \(rank-00001.safetensors is missing",
    ),
]


@pytest.mark.timeout(1500)  # ten starts of two ranks, each with a limit of its own
def test_one_run_survives_all_faults_one_after_another_and_its_losses_are_those_of_a_whole_one(flags, whole, tmp_path):
    folder = tmp_path / "run"
    flags = {**flags, "--output_dir": folder}
    expected = ""
    for fault in FAULTS:
        output = attempt(flags, fault)
        assert re.search(expected, output), f"before '{fault.what}': {output[-3000:]}"
        assert not (folder / "finished.json").exists(), fault.what
        found = complete_checkpoints(folder)
        if fault.signal[0]:
            mark = json.loads((folder / "preempted.json").read_text())
            state = read_state(folder)
            assert (state.state, state.step, state.cause) == ("preempted", mark["step"], mark["cause"])
            assert found[-1].step == mark["step"] >= fault.signal[2] and mark["cause"] in (
                "SIGTERM",
                "SIGUSR1",
                "SIGINT",
                "another rank",
            )
            assert f"after step {mark['step']}: {found[-1].path} is complete" in output, output[-3000:]
        else:
            assert found[-1].step == fault.newest, f"{fault.what}: {output[-3000:]}"
            assert "was killed by SIGKILL" in read_state(folder).cause
        assert len(found) >= min(2, found[-1].step // 2), f"{fault.what}: a complete checkpoint is gone"
        fault.damage(found[-1].path)
        expected = fault.says
    done = start(torchrun(), flags)
    assert done.returncode == 0 and re.search(expected, done.stdout), done.stdout[-3000:]
    assert losses(folder) == whole, "to the last bit"
    left = sorted(path.name for path in folder.glob("*checkpoint-*"))
    damaged = [name for name in left if name.startswith("damaged-")]
    assert len(damaged) == 3 and [n for n in left if n not in damaged] == [
        f"checkpoint-{STEPS - 2}",
        f"checkpoint-{STEPS}",
    ]


def attempt(flags: dict, fault: Fault) -> str:
    """Starts the run, lets the fault happen to it, and returns what was said once all has ended."""
    process = launch(torchrun("tests.train.faulty"), flags, FAULT=fault.kill or "none:-1:0")
    try:
        if fault.signal[0]:
            await_step(flags["--output_dir"], fault.signal[2], process)
            for victim in victims(process, fault.signal[0]):
                victim.send_signal(fault.signal[1])
            asked = time.monotonic()
        output, _ = process.communicate(timeout=TIMEOUT_SECONDS)
        if fault.signal[0]:
            assert time.monotonic() - asked < 25, "the time that is promised"
    finally:
        process.kill()
    assert process.returncode != 0, f"{fault.what}: {output[-3000:]}"
    return output


def await_step(folder: Path, step: int, process: subprocess.Popen) -> None:
    deadline = time.monotonic() + TIMEOUT_SECONDS
    journal = folder / "metrics.jsonl"
    while not (journal.exists() and max(losses(folder), default=0) >= step):
        assert process.poll() is None and time.monotonic() < deadline, process.communicate()[0][-3000:]
        time.sleep(0.05)


def victims(process: subprocess.Popen, whom: str) -> list[psutil.Process]:
    launcher = psutil.Process(process.pid)
    wardens = [child for child in launcher.children() if "tests.train.faulty" in child.cmdline()]
    ranks = [rank for warden in wardens for rank in warden.children()]
    return {"launcher": [launcher], "rank": ranks[-1:], "group": [launcher, *wardens]}[whom]


def test_a_full_disk_costs_a_checkpoint_and_not_the_run(flags, whole, tmp_path):
    folder = tmp_path / "small"
    flags = {**flags, "--output_dir": folder, "--max_train_steps": 6}
    folder.mkdir()
    if (
        os.geteuid()
        or subprocess.run(["mount", "-t", "tmpfs", "-o", "size=180m", "tmpfs", folder], check=False).returncode
    ):
        pytest.skip("a disk of its own needs root")
    try:
        done = start(torchrun(), flags)
        assert done.returncode != 0 and not (folder / "finished.json").exists()
        assert re.search(r"checkpoint 4 could not be written .*No space left on device", done.stdout), done.stdout[
            -3000:
        ]
        assert "the last checkpoint, of step 6, could not be written" in done.stdout
        assert [checkpoint.step for checkpoint in complete_checkpoints(folder)] == [2]
        assert not list(folder.glob(".writing-*")), "what could not be written gives its room back"
        subprocess.run(["mount", "-o", "remount,size=1g", folder], check=True)
        done = start(torchrun(), flags)
        assert done.returncode == 0 and f"continuing from {folder}/checkpoint-2" in done.stdout, done.stdout[-3000:]
        assert losses(folder) == {step: whole[step] for step in range(1, 7)}  # to the last bit
    finally:
        subprocess.run(["umount", "--lazy", folder], check=True)


def test_a_folder_that_is_read_only_is_refused_in_words(tmp_path):
    folder = tmp_path / "readonly"
    folder.mkdir()
    if os.geteuid() or subprocess.run(["mount", "-t", "tmpfs", "-o", "ro", "tmpfs", folder], check=False).returncode:
        pytest.skip("a disk of its own needs root")
    try:
        with pytest.raises(UserError, match=r"readonly is no folder that can be written; name another folder"):
            require_folder(folder)
        with pytest.raises(UserError, match=r"--output_dir \S*readonly cannot be written \(Read-only file system\)"):
            Lock(folder, print)
    finally:
        subprocess.run(["umount", folder], check=True)


def table() -> str:
    """The rows of the documentation's table."""
    return "\n".join(f"| {fault.what} | {fault.outcome} |" for fault in FAULTS)


def test_the_documentation_tells_these_faults_and_outcomes():
    assert table() in DOCS.read_text(encoding="utf-8")


if __name__ == "__main__":
    print(table())
