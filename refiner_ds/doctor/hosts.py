"""The agents on all hosts, over ssh or on this machine alone, asked at once and with time limits."""

import contextlib
import json
import os
import queue
import shlex
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from refiner_ds.doctor.hostfile import Place
from refiner_ds.doctor.protocol import MARK

START_SECONDS = 90.0
"""For ssh, a cold Python and torch from a network disk."""
SSH = (
    *("ssh", "-T", "-o", "BatchMode=yes", "-o", "ConnectTimeout=10"),
    *("-o", "ServerAliveInterval=5", "-o", "ServerAliveCountMax=3"),
)
"""Asks no questions, and notices a host that falls silent within 15 seconds."""
CARRIED = ("GLOO_SOCKET_IFNAME", "OMP_NUM_THREADS", "DS_ACCELERATOR", "HF_HOME", "HF_HUB_OFFLINE")
"""Variables that launch/deepspeed_multinode.sh carries to the hosts, beside NCCL_*."""
HOST_REMEDIES = {
    "REMOTE HOST IDENTIFICATION HAS CHANGED": (
        "if that host was set up anew, forget its old key by `ssh-keygen -R {host}` and take the new one by "
        "`ssh-keyscan {host} >> ~/.ssh/known_hosts`"
    ),
    "Host key verification failed": ("compare its key and make it known by `ssh-keyscan {host} >> ~/.ssh/known_hosts`"),
    "Permission denied": "let it in without a password by `ssh-copy-id {host}`",
    "No module named": "install refiner_ds there for {python}, in the same place as here",
    "ModuleNotFoundError": "install refiner_ds there for {python}, in the same place as here",
    "No such file or directory": "put {python} and the folder {folder} there in the same places as here",
    "not found": "put {python} there in the same place as here",
}
"""By what ssh or the host's shell says."""


class HostFailure(Exception):
    """A host does not answer at all."""


class Refusal(Exception):
    """A host answers that it cannot; in a sentence."""


@dataclass(frozen=True)
class Clock:
    """How far a host's clock is ahead of this machine's, and how uncertain that is, in seconds."""

    ahead: float
    uncertainty: float


class Host:
    """One host's agent. `fault` and `remedy` are set for good once it does not answer."""

    def __init__(self, place: Place, command: Sequence[str]) -> None:
        self.name, self.slots = place.host, place.slots
        self.fault: str | None = None
        self.remedy = ""
        self._lines: queue.Queue[str | None] = queue.Queue()
        self._errors = tempfile.TemporaryFile("w+", errors="replace")  # noqa: SIM115 - closed with the host
        try:
            self._process: subprocess.Popen | None = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._errors, text=True, errors="replace"
            )
        except OSError as error:
            self._process = None
            self._fail(f"{command[0]} cannot be started ({error.strerror})", f"install {command[0]}")
            return
        threading.Thread(target=self._listen, args=(self._process,), daemon=True).start()

    def _listen(self, process: subprocess.Popen) -> None:
        assert process.stdout is not None, "it is a pipe"
        for line in process.stdout:
            if line.startswith(MARK):
                self._lines.put(line.removeprefix(MARK))
        self._lines.put(None)

    def ask(self, question: str, seconds: float, **arguments: Any) -> Any:
        """The agent's answer.

        Raises:
            Refusal: it answers that something is wrong.
            HostFailure: it does not answer within `seconds`, or has gone.
        """
        if self.fault or not self._process or not self._process.stdin:
            raise HostFailure(self.fault)
        try:
            print(json.dumps({"question": question, "arguments": arguments}), file=self._process.stdin, flush=True)
            line = self._lines.get(timeout=seconds)
        except OSError:
            line = None
        except queue.Empty:
            self._fail(
                f"{self.name} has not answered the question {question!r} within {seconds:.0f} s",
                "see whether a network disk hangs there or the host is overloaded",
            )
            raise HostFailure(self.fault) from None
        if line is None:
            self._fail(*self._why_gone())
            raise HostFailure(self.fault)
        answer = json.loads(line)
        if "refusal" in answer:
            raise Refusal(answer["refusal"])
        return answer["answer"]

    def clock(self) -> Clock:
        """Compares clocks: of three questions the one that was answered soonest is the most certain."""
        tries = []
        for _ in range(3):
            before = time.time()
            there = self.ask("clock", 30)
            after = time.time()
            tries.append(Clock(there - (before + after) / 2, (after - before) / 2))
        return min(tries, key=lambda one: one.uncertainty)

    def _why_gone(self) -> tuple[str, str]:
        """What ssh or the host's shell said at its end, and the remedy."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            if self._process:
                self._process.wait(5)
        self._errors.seek(0)
        text = self._errors.read()
        lines = [line.strip() for line in text.splitlines() if line.strip()]
        known = {"host": self.name.rpartition("@")[2], "python": sys.executable, "folder": Path.cwd()}
        for words, remedy in HOST_REMEDIES.items():
            if words in text:
                said = next(line for line in lines if words in line).strip("@ ")
                return f"{self.name} cannot be used: {said}", remedy.format(**known)
        said = lines[-1] if lines else "it hung up without a word"
        return f"{self.name} cannot be reached: {said}", "mend its name or its network, or take it out of the hostfile"

    def _fail(self, fault: str, remedy: str) -> None:
        self.fault, self.remedy = fault, remedy
        self.close(0)

    def close(self, seconds: float = 5.0) -> None:
        """Lets the agent end, and ends the connection where it does not."""
        if self._process:
            with contextlib.suppress(OSError):
                if self._process.stdin:
                    self._process.stdin.close()
            try:
                self._process.wait(seconds)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()


class Hosts:
    """All of them. With `is_local` the one host is this machine, and there is no ssh."""

    def __init__(self, places: Sequence[Place], is_local: bool) -> None:
        agent = [sys.executable, "-m", "refiner_ds.doctor.agent"]
        self.all = [Host(place, agent if is_local else [*SSH, place.host, _over_ssh(agent)]) for place in places]
        carried = {name: os.environ[name] for name in os.environ if name in CARRIED or name.startswith("NCCL_")}
        self.ask("hello", START_SECONDS, environment=carried)

    @property
    def there(self) -> list[Host]:
        """Those that answer, in the hostfile's order."""
        return [host for host in self.all if not host.fault]

    def ask(self, question: str, seconds: float, **arguments: Any) -> dict[str, Any]:
        """The answers of all that are there, by name, asked at once; a Refusal where one answers that it cannot."""
        return self.each(lambda host: host.ask(question, seconds, **arguments))

    def each(self, ask: Callable[[Host], Any], hosts: Sequence[Host] | None = None) -> dict[str, Any]:
        """What `ask` gives for each, at once; one that fails on the way is left out, and has its fault."""

        def outcome(host: Host) -> Any:
            try:
                return ask(host)
            except (Refusal, HostFailure) as error:
                return error

        chosen = self.there if hosts is None else hosts
        if not chosen:
            return {}
        with ThreadPoolExecutor(len(chosen)) as pool:
            outcomes = dict(zip((host.name for host in chosen), pool.map(outcome, chosen), strict=True))
        return {name: found for name, found in outcomes.items() if not isinstance(found, HostFailure)}

    def close(self) -> None:
        """Ends all agents."""
        with ThreadPoolExecutor(max(1, len(self.all))) as pool:
            list(pool.map(Host.close, self.all))


def _over_ssh(agent: Sequence[str]) -> str:
    """The agent's command for a host's shell: in the same folder, with the same PYTHON*, as pdsh carries them too."""
    variables = [f"{name}={value}" for name, value in sorted(os.environ.items()) if name.startswith("PYTHON")]
    return f"cd {shlex.quote(str(Path.cwd()))} && exec env {shlex.join([*variables, *agent])}"
