"""A rank's log: nothing of its output is lost, whoever reads it and from when on."""

import os

from refiner_ds.supervise.log import RankLog, tail_of


def test_what_came_before_the_folder_was_known_is_in_the_log_and_was_passed_on(tmp_path):
    reader, writer = os.pipe()
    log = RankLog(3, "hostb")
    log.take(b"first\nsec", writer)
    log.open_in(tmp_path)
    log.take(b"ond\n", writer)
    log.note("the end")
    log.close()
    assert os.read(reader, 100) == b"first\nsecond\n"
    header, *lines = (tmp_path / "logs" / "rank-00003.log").read_text().splitlines()
    assert "on hostb" in header and lines == ["first", "second", "---- the end"]
    again = RankLog(3, "hostb")
    again.open_in(tmp_path)
    assert "second" in (tmp_path / "logs" / "rank-00003.log").read_text(), "a run that goes on goes on with its log"


def test_output_that_nobody_reads_any_more_is_kept_all_the_same(tmp_path):
    reader, writer = os.pipe()
    os.close(reader)
    log = RankLog(0, "hosta")
    log.open_in(tmp_path)
    log.take(b"still here\n", writer)
    assert "still here" in (tmp_path / "logs" / "rank-00000.log").read_text()


def test_the_tail_is_the_last_lines_as_a_terminal_would_show_them(tmp_path):
    reader, writer = os.pipe()
    log = RankLog(0, "hosta")
    log.take(b"".join(b"line %d\n\n" % number for number in range(30)) + b"10%\r20%\rlast", writer)
    os.close(reader)
    log.open_in(tmp_path)
    log.close()
    *_, first, last = log.tail
    assert tail_of(tmp_path / "logs" / "rank-00000.log")[-2:] == (first, last), "another warden reads the same"
    assert tail_of(tmp_path / "none") == ()
    assert log.tail == (*(f"line {number}" for number in range(11, 30)), "last")
