"""A job of the action for pull requests: its script as a process, in a repository made for it,
before a server that answers as GitHub does."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from support.command import Done

ROOT = Path(__file__).parents[2]
MARK = "<!-- pemlang review -->"
TOKEN = "ghs_not-to-be-seen"
TEXT = 'adapter a = "a"\nparam w: number = 0.5\nsave w * a to "out"\n'


@dataclass
class GitHub:
    """A stand-in: the comments of one pull request, and the requests that came.

    `failures` are answers to give first, by method and the end of the path.
    """

    comments: list[dict[str, Any]] = field(default_factory=list)
    asked: list[tuple[str, str, str | None]] = field(default_factory=list)
    failures: dict[str, list[int]] = field(default_factory=dict)
    login: str | None = None
    page: int = 2
    address: str = ""

    def answer(self, method: str, path: str, body: Any) -> tuple[int, Any, str]:
        """Status, JSON and Link header."""
        failing = self.failures.get(method) or []
        if failing:
            return failing.pop(0), {"message": "no"}, ""
        if path == "/user":
            return (200, {"login": self.login}, "") if self.login else (403, {}, "")
        if method == "GET":
            at = int((re.search(r"[?&]page=(\d+)", path) or [0, "1"])[1])
            shown = self.comments[(at - 1) * self.page : at * self.page]
            more = at * self.page < len(self.comments)
            url = f"{self.address}/repos/o/r/issues/7/comments?per_page=100&page={at + 1}"
            return 200, shown, f'<{url}>; rel="next", <{url}>; rel="last"' if more else ""
        if method == "PATCH":
            number = int(path.rpartition("/")[2])
            [comment] = [c for c in self.comments if c["id"] == number]
            comment |= body
            return 200, comment, ""
        user = {"type": "User" if self.login else "Bot", "login": self.login or "some[bot]"}
        self.comments.append({"id": 100 + len(self.comments), "user": user} | body)
        return 201, self.comments[-1], ""

    @property
    def written(self) -> list[str]:
        """The methods of the requests that write, in order."""
        return [method for method, _, _ in self.asked if method != "GET"]


@contextmanager
def answering() -> Iterator[GitHub]:
    """A GitHub on the loopback interface while the block runs."""
    github = GitHub()

    class Handler(BaseHTTPRequestHandler):
        def handle_any(self) -> None:
            size = int(self.headers.get("Content-Length") or 0)
            body = json.loads(self.rfile.read(size)) if size else None
            github.asked.append((self.command, self.path, self.headers.get("Authorization")))
            status, answer, link = github.answer(self.command, self.path, body)
            self.send_response(status)
            self.send_header("Link", link)
            self.end_headers()
            self.wfile.write(json.dumps(answer).encode())

        do_GET = do_POST = do_PATCH = handle_any

        def log_message(self, *_: object) -> None:
            """Nothing on the terminal."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        github.address = f"http://127.0.0.1:{server.server_port}"
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield github
        server.shutdown()


@dataclass
class Job:
    """A job in a repository of two commits or more."""

    folder: Path
    github: GitHub
    env: dict[str, str]

    def git(self, *words: str) -> str:
        """What git prints."""
        return subprocess.run(
            ["git", *words],
            cwd=self.folder,
            env=self.env,
            check=True,
            capture_output=True,
            text=True,
        ).stdout.strip()

    def write(self, name: str, text: str) -> None:
        """Put a file into the work tree."""
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    def commit(self) -> str:
        """Commit all there is; the commit's hash."""
        self.git("add", "-A")
        self.git("commit", "-qm", "x", "--allow-empty")
        return self.git("rev-parse", "HEAD")

    def run(self, **env: str) -> Done:
        """Run the action's script."""
        summary = self.folder.parent / "summary.md"
        summary.unlink(missing_ok=True)
        done = subprocess.run(
            [sys.executable, str(ROOT / "ci" / "review.py")],
            cwd=self.folder,
            env=self.env | env,
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )
        assert "Traceback" not in done.stderr, done.stderr
        assert TOKEN not in done.stdout + done.stderr + summary.read_text()
        return Done(done.returncode, done.stdout, done.stderr)

    @property
    def summary(self) -> str:
        """What the last run wrote for the job's page."""
        return (self.folder.parent / "summary.md").read_text()

    @property
    def comment(self) -> str:
        """The one comment that is the action's."""
        [body] = [c["body"] for c in self.github.comments if c["body"].startswith(MARK)]
        assert isinstance(body, str)
        return body
