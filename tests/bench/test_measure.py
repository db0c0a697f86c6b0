"""What is measured of processes: the CPU time of all of them, running or ended, and windows that count what came."""

import itertools
import subprocess
import sys
import time

import pytest
import torch

from refiner_ds.bench.job import Job
from refiner_ds.bench.measure import cpu_seconds, peak_megabytes, private_megabytes
from refiner_ds.bench.peers.samples import epochs_of
from refiner_ds.bench.race import Course
from refiner_ds.bench.window import measured_reading, measured_writing

BUSY = """
import time
while time.process_time() < {seconds}:
    pass
"""
WAITS = "print(time.process_time(), flush=True); input()"
IN_A_CHILD = "import subprocess, sys, time; subprocess.run([sys.executable, '-c', {code!r}]); " + WAITS


@pytest.mark.parametrize("seconds", [0.3, 0.6])
def test_a_busy_child_is_counted_while_it_runs_and_once_it_has_ended(seconds):
    own, before = time.process_time(), cpu_seconds()
    child = subprocess.Popen(
        [sys.executable, "-c", BUSY.format(seconds=seconds) + WAITS],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    used = float(child.stdout.readline())
    running = cpu_seconds() - before - (time.process_time() - own)
    child.communicate("\n")
    ended = cpu_seconds() - before - (time.process_time() - own)
    assert running == pytest.approx(used, abs=0.02)
    assert running <= ended == pytest.approx(used, abs=0.05)


def test_what_a_child_has_reaped_is_counted_with_it():
    own, before = time.process_time(), cpu_seconds()
    code = IN_A_CHILD.format(code=BUSY.format(seconds=0.4))
    child = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    used = float(child.stdout.readline()) + 0.4
    found = cpu_seconds() - before - (time.process_time() - own)
    child.communicate("\n")
    assert found == pytest.approx(used, abs=0.1)


def test_a_child_that_waits_costs_nothing_and_its_memory_is_told():
    code = "block = bytearray(b'x') * 120_000_000; print(flush=True); input()"
    child = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    child.stdout.readline()
    before, own = cpu_seconds(), time.process_time()
    time.sleep(0.3)
    assert cpu_seconds() - before - (time.process_time() - own) < 0.02
    assert 120 < peak_megabytes() < 160
    assert 120 < private_megabytes() < 160
    child.communicate("\n")


def job(**changes) -> Job:
    values = {"sources": "", "folder": "", "transform": "exact", "bucket": "1.0:8x8", "batch_size": 4, "workers": 1}
    return Job(**{**values, "warm_up": 3, "samples": 12, "laps": 1, "seed": 0, **changes})


@pytest.mark.parametrize(("shape", "dtype"), [((4, 3, 8, 8), torch.float32), ((4, 8, 8, 3), torch.uint8)])
def test_a_window_counts_the_samples_that_came_and_tells_shapes_alike(shape, dtype):
    taken = []

    def read(_: Job):
        batches = (taken.append(number) or torch.zeros(shape, dtype=dtype) for number in itertools.count())
        return lambda: batches

    figures = measured_reading(read, job())
    assert figures.samples == 12
    assert len(taken) == 3 + 3, "none is read after the window"
    assert (figures.shape, figures.dtype) == ((4, 8, 8, 3), str(dtype).removeprefix("torch."))


def test_warm_up_is_not_in_the_window_and_the_first_batch_is_told():
    def read(_: Job):
        def batches():
            for number in itertools.count():
                time.sleep(0.2 if number == 0 else 0.1 if number < 3 else 0)
                yield torch.zeros(4, 8, 8, 3)

        return batches

    figures = measured_reading(read, job())
    assert 0.2 <= figures.first_batch_seconds < 0.3
    assert figures.wall_seconds < 0.05


def test_laps_add_up_and_an_epoch_is_read_to_its_end_before_the_next_starts():
    started, ended = [], []

    class Loader:
        def __iter__(self):
            started.append(len(ended))
            yield from ({"render": torch.zeros(4, 8, 8, 3)} for _ in range(9))
            ended.append(1)

    assert measured_reading(lambda _: epochs_of(Loader()), job(laps=3)).samples == 36
    assert started == [0, 1, 2]


@pytest.mark.parametrize("samples", [1, 7, 48, 64, 65, 192, 200])
def test_laps_hold_the_samples_asked_for_in_whole_batches(samples):
    course = Course(samples, 2, sys.executable)
    assert course.lap % course.batch_size == 0 and course.lap <= 64
    assert samples <= course.laps * course.lap < samples + course.laps * course.batch_size
    assert course.needed > course.lap + course.warm_up * course.batch_size


def test_writing_counts_what_was_written():
    assert measured_writing(lambda _: 7, job()).samples == 7
