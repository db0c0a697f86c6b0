"""Trying again: how long it waits, when it gives up, and what it says then."""

import email.utils
import random
import time

import pytest

from refiner_ds.data.store.retry import Clock, Refused, Retry, Stopped, Transient, persevere
from refiner_ds.data.store.retry_after import seconds_of
from refiner_ds.errors import UserError
from tests.data.store.shard_files import QUICK


def test_waits_double_up_to_the_longest_and_half_of_each_is_chance():
    retry = Retry(first_wait=0.5, longest_wait=30)
    for attempt in range(1, 2000):
        full = min(0.5 * 2 ** min(attempt - 1, 10), 30)
        waits = [retry.wait_before(attempt, chance) for chance in (0.0, random.uniform(0, 0.99), 0.999)]
        assert waits[0] == full / 2 and waits == sorted(waits) and waits[-1] < full


def test_a_transfer_has_the_deadline_and_the_time_of_the_slowest_rate():
    assert Retry(deadline=300, slowest_rate=1e6).allowance(512_000_000) == 812


def failing(times: int, error: Exception):
    left = [times]

    def action() -> str:
        left[0] -= 1
        if left[0] >= 0:
            raise error
        return "done"

    return action


def test_what_passes_is_tried_again():
    assert persevere(failing(7, Transient("it rains")), "file", QUICK, Clock(20)) == "done"


def test_the_sentence_at_the_end_names_attempts_time_cause_and_remedy():
    started = time.monotonic()
    with pytest.raises(UserError) as caught:
        persevere(failing(1000, Transient("it rains")), "web/file, bytes 3-5,", QUICK, Clock(0.3))
    assert time.monotonic() - started < 2
    words = str(caught.value)
    assert words.startswith("web/file, bytes 3-5, could not be read in ") and " attempts over 0 s" in words
    assert "because it rains; see that the store and the network are well" in words and words.count(". ") == 0


def test_attempts_can_be_counted_out():
    with pytest.raises(UserError, match="in 3 attempts over"):
        persevere(failing(3, Transient("it rains")), "file", QUICK, Clock(float("inf")), most_attempts=3)
    assert persevere(failing(2, Transient("it rains")), "file", QUICK, Clock(20), most_attempts=3) == "done"


def test_a_wait_that_is_asked_for_is_kept_or_ends_it_at_once():
    started = time.monotonic()
    assert persevere(failing(1, Transient("it rains", retry_after=0.5)), "file", QUICK, Clock(20)) == "done"
    assert 0.5 <= time.monotonic() - started < 5
    with pytest.raises(UserError, match=r"in 1 attempt over 0 s.*it rains, and asks to wait 99 s more"):
        persevere(failing(1, Transient("it rains", retry_after=99)), "file", QUICK, Clock(20))


def test_what_is_refused_is_not_tried_again():
    with pytest.raises(UserError, match=r"^file is not there$"):
        persevere(failing(1, Refused("is not there")), "file", QUICK, Clock(20))


def test_waiting_ends_when_it_is_called_off():
    started = time.monotonic()
    clock = Clock(60, lambda: time.monotonic() > started + 0.2)
    with pytest.raises(Stopped):
        persevere(failing(1, Transient("it rains", retry_after=50)), "file", QUICK, clock)
    assert time.monotonic() - started < 5
    with pytest.raises(Stopped):
        clock.check()
    with pytest.raises(Transient, match="0 s were not enough"):
        Clock(-0.1).check()


@pytest.mark.parametrize(("header", "seconds"), [("7", 7), (" 2.5 ", 2.5), ("", 0), ("soon", 0), ("-4", 0)])
def test_retry_after_as_a_number(header, seconds):
    assert seconds_of(header) == seconds


def test_retry_after_as_a_date():
    assert 55 < seconds_of(email.utils.formatdate(time.time() + 60, usegmt=True)) <= 60
    assert seconds_of(email.utils.formatdate(time.time() - 60, usegmt=True)) == 0
