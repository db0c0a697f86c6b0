"""The warden of a rank: a light process between launcher and rank that keeps its log, tells how it ended, and lets no
rank outlive its launcher or the others."""

import contextlib
import os
import platform
import select
import signal
import socket
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

from refiner_ds.errors import PREEMPTED
from refiner_ds.state import fail
from refiner_ds.supervise.circle import Alone, Circle, Hub, Member
from refiner_ds.supervise.ending import COMMAND, MISTAKE, Ending, exit_code_of, how_it_ended, is_abort_for_peer
from refiner_ds.supervise.launcher import first_gone, launchers
from refiner_ds.supervise.link import HUB, LINK
from refiner_ds.supervise.log import RankLog, log_name, tail_of
from refiner_ds.supervise.wire import Wire
from refiner_ds.world import World

TURN_SECONDS = 0.2
END_SECONDS = 25.0
"""How long a rank may take to end after a signal; launchers give 30 s."""
PASSED_ON = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)


class Warden:
    """Runs this very command again as the rank, below itself.

    Args:
        variables: of the launcher, in torchrun's words, for the rank's environment.
    """

    def __init__(self, world: World, variables: dict[str, str]) -> None:
        self._world, self._host = world, platform.node()
        self._address = variables.get("MASTER_ADDR", "127.0.0.1")
        self._launchers = launchers(os.environ)
        self._log = RankLog(world.rank, self._host)
        self._hub = Hub() if world.is_main else None
        self._circle: Circle = Alone()
        self._is_consequence = self._has_told = False
        self._signal: int | None = None
        self._gone = ""
        self._end_by = float("inf")
        self._rank, self._wire, self._outputs = self._start({**os.environ, **_caches_of(world), **variables})

    def run(self) -> int:
        """Watches until the end, and returns the exit code of it."""
        for number in PASSED_ON:
            signal.signal(number, self._pass_on)
        try:
            return self._watch()
        finally:
            self._kill()
            self._log.close()

    def _start(self, environment: dict[str, str]) -> tuple[subprocess.Popen, Wire, dict[int, int]]:
        ours, its = socket.socketpair()
        environment |= {LINK: f"{its.fileno()}:{os.getpid()}", "PYTHONUNBUFFERED": "1"}
        if self._hub:
            environment[HUB] = f"{self._hub.port}:{self._hub.token}"
        rank = subprocess.Popen(
            [sys.executable, *sys.orig_argv[1:]],
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            pass_fds=[its.fileno()],
            start_new_session=True,  # a terminal's Ctrl-C comes to it once, from here
        )
        its.close()
        assert rank.stdout and rank.stderr
        outputs = {rank.stdout.fileno(): 1, rank.stderr.fileno(): 2}
        for descriptor in outputs:
            os.set_blocking(descriptor, False)
        return rank, Wire(ours), outputs

    def _watch(self) -> int:
        while (code := self._rank.poll()) is None:
            self._take_output(TURN_SECONDS)
            self._hear_rank()
            if ending := self._circle.turn():
                return self._ended_by(ending)
            if not self._gone and (gone := first_gone(self._launchers)):
                self._gone = f"was ended because its launcher, process {gone.pid}, is gone"
                self._log.note(f"rank {self._world.rank} {self._gone}; it saves if it can")
                self._pass_on(signal.SIGTERM, None)
            if time.monotonic() > self._end_by:
                self._kill()
        self._take_output(0)
        self._hear_rank()
        if code in (0, PREEMPTED):
            self._circle.leave()
            return code
        self._is_consequence |= is_abort_for_peer(code, self._log.tail)
        how = f"was ended by {signal.Signals(self._signal).name}" if self._signal else how_it_ended(code)
        how = self._gone or how
        return self._failed(how, exit_code_of(code))

    def _failed(self, how: str, code: int) -> int:
        """Tells the others that this rank is no more, and waits for what they know of it."""
        log = str(self._log.path or "")
        ending = Ending(self._world.rank, self._host, how, code, log, self._log.tail, self._is_consequence)
        self._circle.report(ending)
        while not (known := self._circle.turn()):
            time.sleep(TURN_SECONDS)
        return self._ended_by(known)

    def _ended_by(self, ending: Ending) -> int:
        """Ends the rank, says why where nobody else does, and gives the exit code."""
        self._kill()
        self._take_output(0)
        if ending.is_untold and self._log.path:  # on a shared disk its log lies here
            path = self._log.path.with_name(log_name(ending.rank))
            ending = replace(ending, log=str(path), tail=tail_of(path))
        sentence = ending.sentence(self._world.size)
        self._log.note(sentence)
        is_own = ending.rank == self._world.rank
        code = ending.code if is_own or ending.code == MISTAKE else 1
        if self._log.path and self._world.is_main and not (is_own and self._has_told):
            fail(self._log.path.parent.parent, ending.cause(self._world.size), code)
        if ending.code != MISTAKE and (not self._has_told if is_own else self._tells_of(ending)):
            with contextlib.suppress(OSError):
                print(f"{COMMAND}{sentence}", file=sys.stderr, flush=True)
        return code

    def _tells_of(self, ending: Ending) -> bool:
        """Whether it is this warden that tells the end of another rank on the console."""
        if ending.is_untold and ending.rank == 0:  # each node's first that is left
            return self._world.rank == next(rank for rank in self._world.ranks_of_node if rank != 0)
        return self._world.is_main and (ending.is_untold or ending.host != self._host)

    def _take_output(self, seconds: float) -> None:
        """Passes on what the rank says, waiting so long for it to say something."""
        heard = [*self._outputs, *([] if self._wire.is_closed else [self._wire.fileno()])]
        ready, _, _ = select.select(heard, [], [], seconds)
        for descriptor in [each for each in self._outputs if each in ready]:
            with contextlib.suppress(BlockingIOError):
                while output := os.read(descriptor, 1 << 16):
                    self._log.take(output, self._outputs[descriptor])
                del self._outputs[descriptor]

    def _hear_rank(self) -> None:
        for message in self._wire.receive():
            self._is_consequence |= "consequence" in message
            self._has_told |= "told" in message
            if "log" in message:
                self._open_log(Path(message["log"]))
            if "join" in message:
                self._join(**message["join"])

    def _open_log(self, folder: Path) -> None:
        try:
            self._log.open_in(folder)
        except OSError as error:
            print(f"note: rank {self._world.rank} keeps no log in {folder} ({error.strerror})", file=sys.stderr)

    def _join(self, port: int, token: str, host: str, limit_seconds: float) -> None:
        if self._hub:
            self._hub.limit_seconds = limit_seconds
            self._circle = self._hub
            return
        try:
            self._circle = Member(self._world.rank, self._address, port, token, host, limit_seconds)
        except OSError as error:
            print(
                f"note: rank {self._world.rank} on {self._host} cannot reach rank 0's warden at {self._address}:{port} "
                f"({error.strerror or error}), so it learns of a failure elsewhere by timeouts alone",
                file=sys.stderr,
                flush=True,
            )

    def _pass_on(self, number: int, _: object) -> None:
        self._signal = number
        if number != signal.SIGUSR1:
            self._end_by = min(self._end_by, time.monotonic() + END_SECONDS)
        with contextlib.suppress(ProcessLookupError):
            self._rank.send_signal(number)

    def _kill(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            self._rank.kill()
        self._rank.wait()


def _caches_of(world: World) -> dict[str, str]:
    """Folders for what is compiled, one a host: two that share a home would wait for each other, or break it."""
    if not world.spans_nodes:
        return {}
    folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "refiner_ds" / platform.node()
    folders = {
        "TORCH_EXTENSIONS_DIR": folder / "torch_extensions",
        "TRITON_CACHE_DIR": folder / "triton",
        "TORCHINDUCTOR_CACHE_DIR": folder / "inductor",
    }
    return {name: str(path) for name, path in folders.items() if not os.environ.get(name)}
