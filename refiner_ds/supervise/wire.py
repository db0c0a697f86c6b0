"""JSON, a line each, over a socket that never waits."""

import contextlib
import json
import socket
from typing import Any

MOST_BYTES = 1 << 20
"""A longer line is no message of ours."""


class Wire:
    """One end of a connection.

    Attributes:
        is_closed: the other end is gone, or does not speak our language.
    """

    def __init__(self, connection: socket.socket) -> None:
        connection.setblocking(False)
        self._socket = connection
        self._incoming, self._outgoing = b"", b""
        self.is_closed = False

    def fileno(self) -> int:
        """For select."""
        return self._socket.fileno()

    def send(self, **message: Any) -> None:
        """Sends a message, or as much of it as goes now; the rest goes with the next call of `send` or `receive`."""
        self._outgoing += json.dumps(message).encode() + b"\n"
        self._flush()

    def receive(self) -> list[dict[str, Any]]:
        """The whole messages that have come since."""
        self._flush()
        try:
            while block := self._socket.recv(1 << 16):
                self._incoming += block
            self.is_closed = True
        except BlockingIOError:
            pass
        except OSError:
            self.is_closed = True
        *lines, self._incoming = self._incoming.split(b"\n")
        self.is_closed |= len(self._incoming) > MOST_BYTES
        messages = []
        for line in lines:
            try:
                messages.append(dict(json.loads(line)))
            except (ValueError, TypeError):
                self.is_closed = True
        return messages

    def close(self) -> None:
        """Ends the connection."""
        with contextlib.suppress(OSError):
            self._socket.close()
        self.is_closed = True

    def _flush(self) -> None:
        try:
            while self._outgoing:
                self._outgoing = self._outgoing[self._socket.send(self._outgoing) :]
        except BlockingIOError:
            pass
        except OSError:
            self._outgoing = b""
            self.is_closed = True
