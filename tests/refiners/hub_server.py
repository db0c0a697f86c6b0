"""A model hub on this machine: the routes of huggingface.co that a download takes, over folders, with a log."""

import hashlib
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit


class Hub:
    """Serves `models`: folders by id, then by revision. Within the context it listens at `url`, until it is told /stop.

    `revisions` lists the (id, revision) that were looked up, `files` the (id, path) that were fetched.
    """

    def __init__(self, models: dict[str, dict[str, Path]]) -> None:
        self.models = models
        self.revisions: list[tuple[str, str]] = []
        self.files: list[tuple[str, str]] = []
        hub = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                hub.answer(self)

            def do_HEAD(self) -> None:
                hub.answer(self)

            def log_message(self, *_: object) -> None:
                """Nothing: the tests read `files`."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever)

    def __enter__(self) -> "Hub":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def answer(self, request: BaseHTTPRequestHandler) -> None:
        """One request of a download: a revision is looked up, its files are listed, or one is fetched."""
        path = unquote(urlsplit(request.path).path).strip("/")
        if path == "stop":
            self._server.shutdown()
            self._server.socket.close()
            _reply(request, 200, b"")
            return
        parts = path.removeprefix("api/models/").split("/")
        model, (kind, revision), file = "/".join(parts[:2]), (parts[2:4] or ("revision", "main")), "/".join(parts[4:])
        if kind == "revision":
            self.revisions.append((model, revision))
        commits = {name: commit_of(name) for name in self.models.get(model, {})}
        name = next((name for name, commit in commits.items() if revision in (name, commit)), None)
        if not commits and model.startswith("stabilityai/"):
            _reply(request, 404, b"", {"X-Error-Code": "RepoNotFound"})
        elif not commits:  # what the real hub gives the anonymous for a model that is not there, or that is private
            _reply(request, 401, b"")
        elif name is None:
            _reply(request, 404, b"", {"X-Error-Code": "RevisionNotFound"})
        elif kind == "resolve":
            content = (self.models[model][name] / file).read_bytes()
            if request.command == "GET":
                self.files.append((model, file))
            _reply(request, 200, content, {"ETag": f'"{_hash(content)}"', "X-Repo-Commit": commits[name]})
        else:
            files = _listing(self.models[model][name])
            siblings = [{"rfilename": entry["path"]} for entry in files]
            info = {"id": model, "modelId": model, "sha": commits[name], "siblings": siblings}
            _reply(request, 200, json.dumps(files if kind == "tree" else info).encode())


def commit_of(revision: str) -> str:
    """The commit, 40 hexadecimal digits, that a revision stands for."""
    return _hash(revision.encode())


def _listing(folder: Path) -> list[dict[str, object]]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    contents = {str(path.relative_to(folder)): path.read_bytes() for path in files}
    return [
        {"type": "file", "path": name, "size": len(content), "oid": _hash(content)}
        for name, content in contents.items()
    ]


def _hash(content: bytes) -> str:
    return hashlib.sha1(content).hexdigest()


def _reply(request: BaseHTTPRequestHandler, status: int, content: bytes, headers: dict[str, str] | None = None) -> None:
    request.send_response(status)
    for name, value in {"Content-Length": str(len(content)), **(headers or {})}.items():
        request.send_header(name, value)
    request.end_headers()
    if request.command == "GET":
        request.wfile.write(content)
