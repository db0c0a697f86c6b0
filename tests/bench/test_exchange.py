"""`refiner-ds bench exchange`: what counts as kept, and two ranks that really send over a cable of limited rate."""

import json
import os
import shutil
import subprocess

import psutil
import pytest

from refiner_ds.bench.cable import PROGRAMS, cable
from refiner_ds.bench.exchange import ALONE, COALESCED, STAGE_2, TOGETHER, WHOLE, Turn
from refiner_ds.bench.exchange_report import as_json, as_markdown
from refiner_ds.cli import main

PATH = f"{os.environ['PATH']}:/usr/sbin:/sbin"
can_lay_a_cable = pytest.mark.skipif(
    os.geteuid() != 0 or not all(shutil.which(name, path=PATH) for name in PROGRAMS), reason="takes root and iproute2"
)
ABOUT = {"command": "refiner-ds bench exchange", "machine": "2 CPU cores", "date": "2026-01-01", "what": "two ranks"}
COUNTED = {WHOLE: 100.0, STAGE_2: 400.0, COALESCED: 100.0}


def found(sent: float) -> dict[str, list[Turn]]:
    """Two rounds in which ZeRO-2's ranks sent so many bytes."""
    bytes_sent = {ALONE: 3.0, WHOLE: 101.0, STAGE_2: sent, COALESCED: 100.0}
    return {name: [Turn(seconds, each, 25) for seconds in (2.0, 4.0)] for name, each in bytes_sent.items()}


@pytest.mark.parametrize(("sent", "kept"), [(400.0, True), (419.0, True), (430.0, False), (200.0, False)])
def test_bytes_on_the_card_are_those_on_paper_or_the_goal_is_missed(sent, kept):
    told = as_json(found(sent), COUNTED, ABOUT)
    assert told["goal"]["is_kept"] is kept
    page = as_markdown(found(sent), COUNTED, ABOUT)
    assert f"within 5% | {'yes' if kept else 'no'} |" in page
    assert f"| ZeRO-2 | 3.00 [2.00..4.00] | 1.00 [1.00..1.00] | 0.0 | {sent / 400:.2f} [" in page


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--rounds", "0"], "--rounds 0 measures nothing; give at least 1."),
        (["--steps", "0"], "--steps 0 measures nothing; give at least 1."),
        (["--link", "0"], "--link 0 lets nothing pass; give whole megabits per second"),
    ],
)
def test_a_mistake_is_told_in_one_sentence(capsys, arguments, words):
    assert main(["bench", "exchange", *arguments]) == 2
    assert words in capsys.readouterr().err


def test_who_may_lay_no_cable_is_told_what_to_do(capsys, monkeypatch):
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert main(["bench", "exchange", "--link", "100"]) == 2
    assert "only root can do that; start it as root" in capsys.readouterr().err


@can_lay_a_cable
def test_a_cable_lets_no_more_pass_than_it_should_and_is_gone_afterwards():
    """4 MB at 40 Mb/s take 0.8 s, less the burst; a cable without a limit would take some milliseconds."""
    receive = (
        "import socket; s = socket.create_server(('10.78.0.1', 5000)); print('up', flush=True); c, _ = s.accept()\n"
        "import time; c.recv(1); t = time.monotonic(); n = 1\n"
        "while d := c.recv(1 << 16): n += len(d)\n"
        "print(n, time.monotonic() - t)"
    )
    send = "import socket; s = socket.create_connection(('10.78.0.1', 5000)); s.sendall(bytes(4_000_000))"
    with cable(40) as (one, other):
        receiving = subprocess.Popen([*one.words, "python3", "-c", receive], stdout=subprocess.PIPE, text=True)
        with receiving:
            assert receiving.stdout.readline() == "up\n"
            subprocess.run([*other.words, "python3", "-c", send], check=True, timeout=60)
            count, seconds = receiving.stdout.read().split()
    assert int(count) == 4_000_000 and 0.6 < float(seconds) < 5
    assert not psutil.pid_exists(int(one.words[1].removeprefix("--target=")))


@pytest.mark.slow
@pytest.mark.long
@can_lay_a_cable
def test_two_ranks_send_what_is_on_paper_and_wait_for_the_cable(refiner_ds_command, tmp_path):
    files = ["--json", str(tmp_path / "bench.json"), "--markdown", str(tmp_path / "bench.md")]
    small = ["--rounds", "1", "--steps", "1", "--gradient_accumulation_steps", "3", "--link", "200"]
    done = refiner_ds_command("bench", "exchange", *small, *files, timeout=400)
    assert done.returncode == 0, done.stderr[-2000:]
    told = json.loads((tmp_path / "bench.json").read_text())
    assert told["goal"]["is_kept"], told["ways"]
    ways = {way["name"]: way for way in told["ways"]}
    assert set(ways) == {ALONE, *TOGETHER} and ways[WHOLE]["counted_bytes"] == ways[COALESCED]["counted_bytes"]
    for name in TOGETHER:
        (turn,) = ways[name]["rounds"]
        assert turn["seconds"] > 0.9 * 8 * turn["sent"] / 200e6, "no faster than the cable"
    assert "of the MB on paper" in (tmp_path / "bench.md").read_text() == done.stdout
