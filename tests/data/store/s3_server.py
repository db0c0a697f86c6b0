"""A real S3 server on this machine (moto's), whose answers can be told to go wrong on their way out."""

import re
import threading
from collections import deque
from collections.abc import Callable, Iterable

from moto.server import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import make_server

BUCKET = "street-scenes"
Environment = dict
Start = Callable[..., object]


class S3:
    """Serves S3 at `url` while the context lasts.

    Attributes:
        asked: (key, range header) of every GET of an object.
        faults: what the next of these answers are: a status code, "cut" (half of the body) or "corrupt" (one bit).
    """

    def __init__(self) -> None:
        self.asked: list[tuple[str, str]] = []
        self.faults: deque[int | str] = deque()
        self._moto = DomainDispatcherApplication(create_backend_app)
        self._server = make_server("127.0.0.1", 0, self._answer, threaded=True)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01})

    def __enter__(self) -> "S3":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def _answer(self, environment: Environment, start: Start) -> Iterable[bytes]:
        found = re.fullmatch(f"/{BUCKET}/(.+)", environment["PATH_INFO"])
        if environment["REQUEST_METHOD"] != "GET" or not found:
            return self._moto(environment, start)
        self.asked.append((found[1], environment.get("HTTP_RANGE", "")))
        fault = self.faults.popleft() if self.faults else None
        if isinstance(fault, int):
            start(f"{fault} Fault", [("Content-Length", "0"), ("Retry-After", "0")])
            return [b""]
        answer: list = []
        body = b"".join(self._moto(environment, lambda *told: answer.extend(told)))
        # without the sum that newer objects have, by which botocore would notice before we do
        left_out = ("content-length", "x-amz-checksum")
        status, headers = answer[0], [pair for pair in answer[1] if not pair[0].lower().startswith(left_out)]
        if fault == "cut":
            body = body[: len(body) // 2]
        elif fault == "corrupt":
            body = body[:-1] + bytes([body[-1] ^ 1])
        start(status, [*headers, ("Content-Length", str(len(body)))])
        return [body]
