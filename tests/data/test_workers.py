"""Workers of the stream: light, in slots that nobody sees overwritten, gone with the run however it ends."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from refiner_ds.data.buckets import parse_buckets
from refiner_ds.data.manifest import VIEWS
from refiner_ds.data.samples import Samples
from refiner_ds.data.shards import open_shards
from refiner_ds.data.stream import Stream
from refiner_ds.data.workers.pool import AHEAD, HELD
from refiner_ds.data.workers.slots import Lender, Slots
from refiner_ds.errors import UserError

BUCKETS = parse_buckets("1.0:64x64,1.5:96x64")
STEPS = 40


def stream_of(folder: Path, workers: int) -> Stream:
    samples = Samples.of(open_shards(str(folder)), "train", BUCKETS, 3)
    return Stream(samples, samples.order(4), 2, 0, 1, workers)


def children_of(process: int) -> list[int]:
    """Ids of the processes that it has started and that have not ended."""
    found = []
    for task in Path(f"/proc/{process}/task").iterdir():
        found += map(int, (task / "children").read_text().split())
    return [child for child in found if is_running(child)]


def is_running(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def status(process: int, name: str) -> int:
    (line,) = (line for line in Path(f"/proc/{process}/status").read_text().splitlines() if line.startswith(name))
    return int(line.split()[1])


def wait_until(is_so, seconds: float = 10) -> bool:
    end = time.monotonic() + seconds
    while not is_so() and time.monotonic() < end:
        time.sleep(0.02)
    return is_so()


@pytest.mark.parametrize("kept", [1, 5, 11])
def test_what_a_reader_keeps_is_never_overwritten(shards, kept):
    """Every `kept`-th batch is kept to the end, its pictures noted when it came; the rest goes."""
    held = []
    for number, batch in enumerate(stream_of(shards, 2).batches(0, STEPS)):
        if number % kept == 0:
            held.append((batch, {view: getattr(batch, view).clone() for view in VIEWS}))
    assert len(held) == -(-STEPS * 2 // kept)
    assert all(torch.equal(getattr(batch, view), noted[view]) for batch, noted in held for view in VIEWS)


def test_a_tensor_of_a_batch_keeps_its_pictures_after_the_batch_and_the_stream_are_gone(shards):
    batches = stream_of(shards, 1).batches(0, STEPS)
    batch = next(batches)
    row, noted = batch.gt[1, 0], batch.gt[1, 0].clone()
    del batch
    for _ in batches:
        assert torch.equal(row, noted)
    del batches
    assert torch.equal(row, noted)


def test_a_view_of_numpy_keeps_its_slot_too():
    lender = Lender(Slots(2, 24))
    slot = lender.take()
    row = lender.lend(slot, (2, 3, 4))[1]
    assert slot not in lender.free
    del row
    assert slot in lender.free


def test_a_worker_imports_nothing_from_where_a_run_was_started(shards, tmp_path, monkeypatch):
    (tmp_path / "queue.py").write_text("raise ImportError('a stranger')")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [path for path in sys.path if path])
    assert len(next(stream_of(shards, 1).batches(0, 1))) == 2


def test_memory_is_used_again_and_nothing_is_copied_for_a_reader_that_keeps_pace(shards):
    places = set()
    for batch in stream_of(shards, 2).batches(0, STEPS):
        places.add(batch.render.data_ptr())
        assert batch.render.stride()[1] == 1, "channels last, as they were filled in"
    assert len(places) <= 2 * AHEAD + HELD < STEPS


def test_a_worker_is_small_and_knows_no_torch(shards):
    before = set(children_of(os.getpid()))
    batches = stream_of(shards, 1).batches(0, STEPS)
    next(batches)
    (worker,) = set(children_of(os.getpid())) - before
    assert "torch" not in Path(f"/proc/{worker}/maps").read_text()
    assert status(worker, "VmHWM") < 150_000, "kB"


@pytest.mark.parametrize("ended", ["at the end", "left", "closed"])
def test_no_worker_and_no_open_file_is_left(shards, ended):
    before, open_files = set(children_of(os.getpid())), len(os.listdir("/dev/fd"))
    batches = stream_of(shards, 2).batches(0, 2)
    next(batches)
    assert len(set(children_of(os.getpid())) - before) == 2
    if ended == "at the end":
        list(batches)
    elif ended == "closed":
        batches.close()
    del batches
    assert not set(children_of(os.getpid())) - before and len(os.listdir("/dev/fd")) == open_files


def test_a_killed_worker_ends_the_stream_in_words(shards):
    before = set(children_of(os.getpid()))
    batches = stream_of(shards, 2).batches(0, STEPS)
    next(batches)
    killed = min(set(children_of(os.getpid())) - before)
    os.kill(killed, signal.SIGKILL)
    with pytest.raises(UserError, match=f"process {killed}, .* ended .signal 9; out of memory.*dataloader_num_workers"):
        list(batches)
    assert not set(children_of(os.getpid())) - before


def test_a_fault_of_ours_in_a_worker_is_told_with_its_traceback(shards):
    stream = stream_of(shards, 1)
    stream.samples.rows = stream.samples.rows + 1000
    with pytest.raises(RuntimeError, match=r"(?s)worker of the stream failed:.*Traceback.*samples.py.*IndexError"):
        next(stream.batches(0, 1))


TRAINER = """
import sys
from tests_of_workers import stream_of
batches = stream_of(sys.argv[1], 2).batches(0, 100_000)
print(len(next(batches)), flush=True)
sys.stdin.read()
"""


def test_workers_end_with_a_parent_that_is_killed(shards, tmp_path):
    (tmp_path / "tests_of_workers.py").write_text(Path(__file__).read_text())
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), *filter(None, sys.path)])}
    arguments = [sys.executable, "-c", TRAINER, str(shards)]
    with subprocess.Popen(
        arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
    ) as parent:
        try:
            assert parent.stdout.readline() == "2\n"
            workers = children_of(parent.pid)
            assert len(workers) == 2
        finally:
            parent.kill()
        parent.wait(10)
        assert wait_until(lambda: not any(map(is_running, workers)))
