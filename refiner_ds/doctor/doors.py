"""The agent's side of the network: listening for the other hosts, and trying to get through to them."""

import contextlib
import socket
import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

CONNECT_SECONDS = 5.0


class Doors:
    """A port that answers with this host's token, until it is closed."""

    def __init__(self) -> None:
        self._socket: socket.socket | None = None

    def open(self, token: str) -> int:
        """The port, on all addresses of this host."""
        self.close()
        family = socket.AF_INET6 if socket.has_dualstack_ipv6() else socket.AF_INET
        self._socket = socket.create_server(("", 0), family=family, dualstack_ipv6=family == socket.AF_INET6)
        threading.Thread(target=_answer, args=(self._socket, token.encode()), daemon=True).start()
        return int(self._socket.getsockname()[1])

    def close(self) -> None:
        """Nobody gets through any more."""
        if self._socket:
            with contextlib.suppress(OSError):
                self._socket.shutdown(socket.SHUT_RDWR)  # else accept would go on with a closed socket
            self._socket.close()
            self._socket = None


def _answer(server: socket.socket, token: bytes) -> None:
    with contextlib.suppress(OSError):
        while True:
            visitor, _ = server.accept()
            with visitor, contextlib.suppress(OSError):
                visitor.sendall(token)


def unreachable(targets: Mapping[str, Sequence]) -> dict[str, str]:
    """Of {host: (port, token)} those that this host does not get through to, with why."""
    with ThreadPoolExecutor(min(32, max(1, len(targets)))) as pool:
        faults = pool.map(lambda item: _fault(item[0], *item[1]), targets.items())
        return {host: fault for host, fault in zip(targets, faults, strict=True) if fault}


def _fault(host: str, port: int, token: str) -> str | None:
    name = host.rpartition("@")[2]
    try:
        with socket.create_connection((name, port), CONNECT_SECONDS) as door:
            door.settimeout(CONNECT_SECONDS)
            answer = b""
            while piece := door.recv(256):
                answer += piece
            place = door.getpeername()[0]
    except OSError as error:
        return error.strerror or str(error)
    return None if answer.decode(errors="replace") == token else f"{name} leads to {place}, which is another host"
