"""A web server of files on this machine, with ranges and a log, that can be told to fail as servers do."""

import re
import threading
import time
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Literal
from urllib.parse import urlsplit


@dataclass(frozen=True)
class Fault:
    """How one answer goes wrong.

    status: `number` is the code, without the file. drop: the connection breaks after half of the body. cut: half of the
    body, announced as all of it. shift: another part of the file, honestly named. corrupt: one bit is turned.
    stall: half of the body, then nothing for `number` seconds.
    """

    kind: Literal["status", "drop", "cut", "shift", "corrupt", "stall"]
    number: float = 0
    headers: dict[str, str] = field(default_factory=dict)


class Web:
    """Serves `files` by name while the context lasts; the next answers go wrong as `faults` say, one each.

    Attributes:
        asked: (name, range header) of every request for a file.
        most_at_once: requests that were answered at the same time.
    """

    def __init__(self, files: dict[str, bytes], has_ranges: bool = True, latency: float = 0) -> None:
        self.files, self.has_ranges, self.latency = files, has_ranges, latency
        self.faults: deque[Fault] = deque()
        self.asked: list[tuple[str, str]] = []
        self.paths: list[str] = []
        self.most_at_once = 0
        self._at_once = 0
        self._lock = threading.Lock()
        self._closing = threading.Event()
        web = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                web.answer(self)

            def log_message(self, *_: object) -> None:
                """Nothing: the tests read `asked`."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}/set"
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01})

    def __enter__(self) -> "Web":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._closing.set()
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def fail(self, faults: Iterable[Fault]) -> None:
        """Lets the next answers go wrong."""
        self.faults.extend(faults)

    def times(self, name: str) -> int:
        """How often a file was asked for."""
        return sum(asked == name for asked, _ in self.asked)

    def answer(self, request: BaseHTTPRequestHandler) -> None:
        """One request."""
        name, part = urlsplit(request.path).path.rpartition("/")[2], request.headers.get("Range", "")
        with self._lock:
            self.asked.append((name, part))
            self.paths.append(request.path)
            fault = self.faults.popleft() if self.faults else None
            self._at_once += 1
            self.most_at_once = max(self.most_at_once, self._at_once)
        try:
            time.sleep(self.latency)
            if fault and fault.kind == "status":
                _send(request, int(fault.number), b"", fault.headers)
            elif name not in self.files:
                _send(request, 404, b"", {})
            else:
                self._send_part(request, self.files[name], part, fault)
        except ConnectionError:
            request.close_connection = True
        finally:
            with self._lock:
                self._at_once -= 1

    def _send_part(self, request: BaseHTTPRequestHandler, content: bytes, part: str, fault: Fault | None) -> None:
        found = re.fullmatch(r"bytes=(\d+)-(\d+)", part) if self.has_ranges else None
        first, last = (int(found[1]), int(found[2])) if found else (0, len(content) - 1)
        if first >= len(content):
            _send(request, 416, b"", {})
            return
        last = min(last, len(content) - 1)
        body = bytearray(content[first : last + 1])
        if fault and fault.kind == "shift":
            first, last = first + 1, last + 1
            body = body[1:] + b"?"
        if fault and fault.kind == "corrupt":
            body[len(body) // 2] ^= 1
        if fault and fault.kind == "cut":
            body = body[: len(body) // 2]
        headers = {"Content-Range": f"bytes {first}-{last}/{len(content)}"} if found else {}
        status = 206 if found else 200
        if not fault or fault.kind not in ("drop", "stall"):
            _send(request, status, bytes(body), headers)
            return
        _send(request, status, bytes(body[: len(body) // 2]), headers, announced=len(body))
        request.wfile.flush()
        if fault.kind == "stall":
            self._closing.wait(fault.number)
        request.close_connection = True


def _send(
    request: BaseHTTPRequestHandler, status: int, body: bytes, headers: dict[str, str], announced: int | None = None
) -> None:
    request.send_response(status)
    for name, value in headers.items():
        request.send_header(name, value)
    request.send_header("Content-Length", str(len(body) if announced is None else announced))
    request.end_headers()
    request.wfile.write(body)
