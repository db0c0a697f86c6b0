"""The circle of wardens, over real connections on this machine: one end is everybody's, and told with its cause."""

import platform
import time

import pytest

from refiner_ds.supervise import circle
from refiner_ds.supervise.circle import Alone, Hub, Member
from refiner_ds.supervise.ending import Ending, first_cause, how_it_ended, is_abort_for_peer

OWN = Ending(0, "hosta", "ended with exit code 1")
LOST = Ending(1, "hostb", "ended with exit code 1", log="logs/rank-00001.log", tail=("Connection closed by peer",))


@pytest.fixture
def hub():
    hub = Hub()
    hub.limit_seconds = 60
    return hub


def member_of(hub: Hub, rank: int, limit_seconds: float = 60) -> Member:
    return Member(rank, "127.0.0.1", hub.port, hub.token, "hosta", limit_seconds)


def endings(*places, seconds: float = 8.0) -> list[Ending | None]:
    """Lets all take turns until each knows an end, or the time is up."""
    found: list[Ending | None] = [None] * len(places)
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline and not all(found):
        found = [known or place.turn() for known, place in zip(found, places, strict=True)]
        time.sleep(0.02)
    return found


def test_the_end_of_one_is_told_to_all_with_its_last_words(hub):
    members = [member_of(hub, rank) for rank in (1, 2, 3)]
    assert endings(hub, *members, seconds=0.5) == [None] * 4
    members[0].report(LOST)
    assert endings(hub, *members) == [LOST] * 4
    assert LOST.sentence(4) == (
        "rank 1 of 4 on hostb ended with exit code 1, and the job ends with it; its log is logs/rank-00001.log and "
        "ends with:\n    Connection closed by peer"
    )


def test_the_cause_is_told_and_not_its_consequences_whichever_comes_first(hub):
    consequence = Ending(0, "hosta", "ended with exit code 1", is_consequence=True)
    member = member_of(hub, 1)
    endings(hub, member, seconds=0.3)
    hub.report(consequence)
    member.report(LOST)
    assert endings(hub, member) == [LOST, LOST]
    assert first_cause([consequence, LOST]) == first_cause([LOST, consequence]) == LOST
    assert first_cause([consequence]) == consequence


def test_a_warden_that_is_gone_without_a_word_ends_the_others(hub):
    members = [member_of(hub, rank) for rank in (1, 2)]
    endings(hub, *members, seconds=0.3)
    members[0]._wire.close()
    found = endings(hub, members[1])
    assert [(end.rank, end.host, end.how) for end in found if end] == [(1, platform.node(), circle.GONE)] * 2
    assert all(end.is_untold for end in found if end)


def test_a_silent_host_is_named_by_who_still_speaks(hub, monkeypatch):
    monkeypatch.setattr(circle, "BEAT_SECONDS", 0.2)
    hub.limit_seconds = 1.5
    speaking, silent = member_of(hub, 1), member_of(hub, 2, limit_seconds=1.5)
    endings(hub, speaking, silent, seconds=0.5)
    found = endings(hub, speaking)  # nobody turns rank 2's
    assert [end.rank for end in found if end] == [2, 2]
    assert found[0] and "has not been heard of for" in found[0].how
    time.sleep(1.5)
    silent._wire.receive()  # what was sent before its host fell silent
    silent._heard -= 1.5
    (end,) = endings(silent)
    assert end and end.rank == 0 and end.host == "hosta" and end.is_untold


def test_when_only_consequences_are_told_the_one_that_has_been_silent_is_named(hub, monkeypatch):
    monkeypatch.setattr(circle, "QUIET_SECONDS", 0.5)
    member = member_of(hub, 1)
    endings(hub, member, seconds=0.3)
    hub.report(Ending(0, "hosta", "ended with exit code 1", is_consequence=True))
    (end,) = endings(hub)
    assert end and end.rank == 1 and "has not been heard of for" in end.how


def test_who_has_left_in_peace_is_not_missed(hub):
    member, other = member_of(hub, 1), member_of(hub, 2)
    endings(hub, member, other, seconds=0.3)
    member.leave()
    member._wire.close()
    assert endings(hub, other, seconds=1.5) == [None, None]
    hub.leave()
    endings(other, seconds=0.3)
    for one in hub._members:
        one.wire.close()
    assert endings(other, seconds=0.5) == [None], "rank 0's may end first"


def test_strangers_are_not_heard(hub):
    stranger = Member(1, "127.0.0.1", hub.port, "0" * 32, "hosta", 60)
    stranger.report(LOST)
    assert endings(hub, seconds=1.5) == [None]
    assert not hub._members


def test_a_warden_alone_knows_its_own_end():
    alone = Alone()
    assert alone.turn() is None
    alone.report(OWN)
    assert alone.turn() == OWN


WATCHDOG = (
    "[Rank 3] Watchdog caught collective operation timeout: WorkNCCL(SeqNum=7, OpType=ALLREDUCE) ran for 600000 ms"
)
GPU_FAULT = (
    "Process group watchdog thread terminated with exception: CUDA error: an illegal memory access (ProcessGroupNCCL)"
)


@pytest.mark.parametrize(
    ("code", "tail", "is_for_peer"),
    [
        (-6, (WATCHDOG, "terminate called after throwing an instance of 'c10::DistBackendError'"), True),
        (-6, ("terminate called after throwing an instance of 'gloo::IoException'", "Connection closed by peer"), True),
        (-6, (GPU_FAULT, "terminate called after throwing an instance of 'c10::DistBackendError'"), False),
        (-6, ("malloc(): invalid size (unsorted)",), False),
        (-11, (WATCHDOG,), False),
    ],
)
def test_an_abort_for_a_rank_that_is_gone_is_a_consequence_and_any_other_is_not(code, tail, is_for_peer):
    assert is_abort_for_peer(code, tail) == is_for_peer


def test_signals_are_told_by_name():
    assert how_it_ended(-9) == "was killed by SIGKILL (by hand, or by the kernel for lack of memory)"
    assert how_it_ended(-11) == "was killed by SIGSEGV"
    assert how_it_ended(3) == "ended with exit code 3"
