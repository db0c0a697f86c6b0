"""A real `mlflow server` on loopback, and bad weather in front of it."""

import os
import random
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from refiner_ds.ports import free_port


class Server:
    """SQLite behind it, artifacts served; it can be killed and started again."""

    def __init__(self, folder: Path) -> None:
        self._folder, self._port = folder, free_port()
        self.uri = f"http://127.0.0.1:{self._port}"
        self._process: subprocess.Popen | None = None

    def start(self) -> None:
        """Starts it, and waits until it answers."""
        command = ["-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(self._port), "--workers", "1"]
        command += ["--backend-store-uri", f"sqlite:///{self._folder}/server.db"]
        command += ["--artifacts-destination", f"{self._folder}/artifacts"]
        environment = {**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
        with (self._folder / "server.log").open("a") as log:
            self._process = subprocess.Popen(
                [sys.executable, *command], env=environment, stdout=log, stderr=log, start_new_session=True
            )
        for _ in range(240):
            try:
                with urllib.request.urlopen(f"{self.uri}/health", timeout=1):
                    return
            except (urllib.error.URLError, OSError):
                time.sleep(0.5)
        raise AssertionError((self._folder / "server.log").read_text()[-2000:])

    def stop(self) -> None:
        """Kills it with all its workers."""
        if self._process:
            os.killpg(self._process.pid, 9)
            self._process.wait()
            self._process = None


class Weather:
    """Stands before a server: a share of the requests end in 503, half of them after the server has done them; all take
    so many seconds."""

    def __init__(self, server: Server, fails: float, seconds: float) -> None:
        self.count = self.failed = 0
        weather, lock, chance = self, threading.Lock(), random.Random(1)

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def handle_any(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                with lock:
                    drawn = chance.random()
                    weather.count += 1
                    weather.failed += drawn < fails
                time.sleep(seconds)
                status, content, kind = 503, b"bad weather", "text/plain"
                if drawn >= fails / 2:
                    answer = self._forwarded(body)
                    status, content, kind = answer if drawn >= fails else (status, content, kind)
                self.send_response(status)
                self.send_header("Content-Type", kind)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            def _forwarded(self, body: bytes) -> tuple[int, bytes, str]:
                headers = {name: self.headers[name] for name in ("Content-Type",) if self.headers.get(name)}
                request = urllib.request.Request(server.uri + self.path, body or None, headers, method=self.command)
                try:
                    with urllib.request.urlopen(request, timeout=30) as answer:
                        return answer.status, answer.read(), answer.headers.get("Content-Type", "text/plain")
                except urllib.error.HTTPError as error:
                    return error.code, error.read(), error.headers.get("Content-Type", "text/plain")

            do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = handle_any

            def log_message(self, *_: object) -> None:
                """Says nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.uri = f"http://127.0.0.1:{self._server.server_address[1]}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def stop(self) -> None:
        """Closes it."""
        self._server.shutdown()
        self._server.server_close()
