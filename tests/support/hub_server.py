"""A small server that speaks the hub's download protocol: `/<repo>/resolve/<revision>/<file>`,
answered with the file, its ETag and the commit, and byte ranges honoured; and
`/api/models/<repo>/tree/<revision>`, answered with what is there."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

_RESOLVE = re.compile(r"/(?P<repo>[^/]+/[^/]+)/resolve/(?P<revision>[^/]+)/(?P<file>.+)")
_TREE = re.compile(r"/api/models/(?P<repo>[^/]+/[^/]+)/tree/(?P<revision>[^/?]+).*")


@dataclass
class Hub:
    """A hub.

    Attributes:
        repos: name to revision to directory; a revision may be a branch, its directory's commit
            is made from its content.
        sent: method, file and bytes of each answer.
        url: where it is.
    """

    repos: dict[str, dict[str, Path]]
    sent: list[tuple[str, str, int]] = field(default_factory=list)
    url: str = ""

    def commit(self, directory: Path) -> str:
        """Forty hexadecimal digits that stand for a directory's content."""
        files = sorted(path for path in directory.iterdir() if path.is_file())
        return hashlib.sha1(b"".join(path.read_bytes() for path in files)).hexdigest()

    def find(self, repo: str, revision: str) -> Path | None:
        """The directory of a branch or of a commit."""
        branches = self.repos[repo]
        by_commit = {self.commit(path): path for path in branches.values()}
        return branches.get(revision) or by_commit.get(revision)

    def env(self, cache: Path) -> dict[str, str]:
        """The environment of a process that is to use this hub, and a cache of its own."""
        return {"HF_ENDPOINT": self.url, "HF_HOME": str(cache), "HF_HUB_OFFLINE": "0"}

    def bytes_of(self, file: str) -> int:
        """How many bytes of a file have been sent."""
        return sum(size for method, name, size in self.sent if method == "GET" and name == file)


@contextmanager
def serving(repos: dict[str, dict[str, Path]]) -> Iterator[Hub]:
    """A hub on the loopback interface while the block runs."""
    hub = Hub(repos)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_HEAD(self) -> None:
            self._answer(send=False)

        def do_GET(self) -> None:
            self._answer(send=True)

        def _answer(self, send: bool) -> None:
            listing = _TREE.fullmatch(self.path)
            if listing is not None and (top := hub.find(listing["repo"], listing["revision"])):
                return self._list(top)
            asked = _RESOLVE.fullmatch(self.path)
            if asked is None or asked["repo"] not in hub.repos:
                return self._refuse("RepoNotFound")
            directory = hub.find(asked["repo"], asked["revision"])
            if directory is None:
                return self._refuse("RevisionNotFound")
            path = directory / asked["file"]
            if not path.is_file():
                return self._refuse("EntryNotFound", hub.commit(directory))
            return self._send(path, hub.commit(directory), send)

        def _list(self, top: Path) -> None:
            paths = [str(path.relative_to(top)) for path in top.rglob("*") if path.is_file()]
            files = [{"type": "file", "path": path, "size": 1, "oid": "0"} for path in paths]
            data = json.dumps(files).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def _send(self, path: Path, commit: str, send: bool) -> None:
            data = path.read_bytes()
            part = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
            self.send_response(206 if part else 200)
            if part:
                start, end = int(part[1]), min(int(part[2] or len(data) - 1), len(data) - 1)
                self.send_header("Content-Range", f"bytes {start}-{end}/{len(data)}")
                data = data[start : end + 1]
            self.send_header("Content-Length", str(len(data)))
            self.send_header("ETag", f'"{hashlib.sha1(path.read_bytes()).hexdigest()}"')
            self.send_header("X-Repo-Commit", commit)
            self.end_headers()
            if send:
                self.wfile.write(data)
            hub.sent.append((self.command, path.name, len(data) if send else 0))

        def _refuse(self, code: str, commit: str | None = None) -> None:
            self.send_response(404)
            self.send_header("X-Error-Code", code)
            if commit:
                self.send_header("X-Repo-Commit", commit)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = Thread(target=server.serve_forever, daemon=True)
    thread.start()
    hub.url = f"http://127.0.0.1:{server.server_port}"
    try:
        yield hub
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
