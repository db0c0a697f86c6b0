"""The journal keeps everything, in full, and costs training next to nothing."""

import json
import time

from refiner_ds.tracking.journal import FILE_NAME, Journal, read_lines, read_metrics


def test_it_gives_back_what_was_written_to_the_last_bit(tmp_path):
    journal = Journal(tmp_path)
    journal.metrics(1, {"train/loss": 0.1 + 0.2})
    journal.metrics(2, {"train/loss": 1 / 3, "train/lr": 1e-4})
    journal.picture(2, "validation/a.png")
    journal.reference(2, "checkpoint", "checkpoint-2")
    journal.metrics(2, {"train/loss": 0.25})  # a resumed run came by again
    assert read_metrics(tmp_path) == {"train/loss": {1: 0.1 + 0.2, 2: 0.25}, "train/lr": {2: 1e-4}}
    assert [line.step for line in read_lines(tmp_path)] == [1, 2, 2]
    assert all(abs(line.at - time.time()) < 60 for line in read_lines(tmp_path))


def test_a_line_takes_far_less_than_a_hundredth_of_any_step(tmp_path):
    journal = Journal(tmp_path)
    metrics = {f"train/metric_{number}": number / 7 for number in range(20)}
    began = time.perf_counter()
    for step in range(1000):
        journal.metrics(step, metrics)
    assert (time.perf_counter() - began) / 1000 < 1e-3, "a step of 0.1 s would still be a hundred times as long"
    assert len((tmp_path / FILE_NAME).read_text().splitlines()) == 1000


def test_a_full_disk_delays_lines_and_loses_none(tmp_path, monkeypatch):
    journal = Journal(tmp_path)
    written, file = [], journal._file

    class Full:
        is_full = True

        def write(self, content):
            if self.is_full:
                raise OSError(28, "No space left on device")
            written.append(content)
            return file.write(content)

        def close(self):
            file.close()

    disk = Full()
    monkeypatch.setattr(journal, "_file", disk)
    for step in (1, 2):
        journal.metrics(step, {"train/loss": 1.0})
    assert not written
    disk.is_full = False
    journal.metrics(3, {"train/loss": 1.0})
    assert [json.loads(line)["step"] for line in (tmp_path / FILE_NAME).read_text().splitlines()] == [1, 2, 3]
    assert journal.close() == 0
