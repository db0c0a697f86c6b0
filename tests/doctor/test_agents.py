"""Agents and who asks them: silence has a limit, nothing is left running, and what is measured is real."""

import json
import socket
import subprocess
import sys
import time

import pytest

from refiner_ds.doctor import agent, facts
from refiner_ds.doctor.doors import Doors, unreachable
from refiner_ds.doctor.hostfile import Place
from refiner_ds.doctor.hosts import Host, HostFailure
from refiner_ds.doctor.protocol import MARK
from refiner_ds.errors import UserError

ECHO = f"""
import sys
print('Welcome to this machine')
for line in sys.stdin:
    print('{MARK}' + '{{"answer": 5}}', flush=True)
"""


def test_what_a_login_prints_is_no_answer():
    host = Host(Place("a", 1), [sys.executable, "-c", ECHO])
    assert host.ask("clock", 20) == 5
    host.close()


def test_a_host_that_falls_silent_is_given_up_in_time_and_its_connection_ends():
    host = Host(Place("a", 1), ["sleep", "100"])
    started = time.monotonic()
    with pytest.raises(HostFailure, match="has not answered the question 'clock' within 0 s"):
        host.ask("clock", 0.3)
    assert time.monotonic() - started < 5
    assert host._process.poll() is not None and host.remedy


@pytest.mark.parametrize(
    ("said", "words"),
    [
        ("Host key verification failed.", "ssh-keyscan hostb >> ~/.ssh/known_hosts"),
        ("@ WARNING: REMOTE HOST IDENTIFICATION HAS CHANGED! @\nHost key verification failed.", "ssh-keygen -R hostb"),
        ("me@hostb: Permission denied (publickey).", "ssh-copy-id hostb"),
        ("ssh: connect to host hostb port 22: No route to host", "out of the hostfile"),
        ("/usr/bin/python: No module named refiner_ds", "install refiner_ds there"),
        ("bash: line 1: cd: /data/run: No such file or directory", "in the same places as here"),
    ],
)
def test_what_ssh_says_at_its_end_comes_with_a_remedy(said, words):
    host = Host(Place("me@hostb", 1), ["bash", "-c", f"echo {said!r} >&2; exit 255"])
    with pytest.raises(HostFailure):
        host.ask("hello", 20)
    assert host.fault.startswith("me@hostb cannot be") and said.split("\n")[0].strip("@ ") in host.fault
    assert words in host.remedy


def test_an_agent_ends_with_its_input_and_survives_a_question_that_fails():
    question = json.dumps({"question": "shards", "arguments": {"location": "nowhere"}})
    done = subprocess.run(
        [sys.executable, "-m", "refiner_ds.doctor.agent"],
        input=f"{question}\n{question}\n",
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    first, second = (json.loads(line.removeprefix(MARK)) for line in done.stdout.splitlines())
    assert first == second and "has no readable index.json" in first["refusal"]


def test_a_host_behind_a_closed_port_or_under_another_name_is_told():
    doors = Doors()
    port = doors.open("mine")
    faults = unreachable({"127.0.0.1": (port, "mine"), "localhost": (port, "other's")})
    doors.close()
    assert faults.keys() == {"localhost"} and "which is another host" in faults["localhost"]
    assert "refused" in unreachable({"127.0.0.1": (port, "mine")})["127.0.0.1"]


@pytest.mark.parametrize(
    ("chosen", "is_fault"), [("lo", False), ("l", False), ("=lo", False), ("=l", True), ("^lo", False), ("ib7", True)]
)
def test_an_interface_that_nccl_would_not_find_is_told(chosen, is_fault, monkeypatch):
    monkeypatch.setenv("NCCL_SOCKET_IFNAME", chosen)
    fault = facts.network(None)["no_nccl"]
    assert bool(fault) is is_fault and (not fault or f"NCCL_SOCKET_IFNAME is {chosen}, which fits none" in fault)


def test_an_interface_that_gloo_would_not_find_is_told(monkeypatch):
    monkeypatch.setenv("GLOO_SOCKET_IFNAME", "ib7")
    assert "GLOO_SOCKET_IFNAME is ib7, and there is no ib7" in facts.network("10.0.0.1")["no_interface"]


def test_ranks_that_cannot_meet_are_told_with_their_reason_and_end():
    with socket.create_server(("127.0.0.1", 0)) as server, pytest.raises(UserError, match=r"rank 0 ended .*EADDRINUSE"):
        agent.all_reduce("gloo", 1024, 30.0, [0, 1], 2, "127.0.0.1", server.getsockname()[1], "lo")
