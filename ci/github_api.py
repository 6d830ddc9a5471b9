"""What is needed of GitHub: the lines it reads from a job, and one comment on a pull request."""

from __future__ import annotations

import json
import os
import re
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

MARK = "<!-- pemlang review -->"
TRIES = 3
PAUSE = 1.0  # seconds before the second try; twice that before the third
TIMEOUT = 30


def warn(text: str) -> None:
    """Show a warning on the page of the job."""
    for sign, code in (("%", "%25"), ("\r", "%0D"), ("\n", "%0A")):
        text = text.replace(sign, code)
    print(f"::warning title=pemlang::{text}", flush=True)


def pull_request() -> int | None:
    """The number of the pull request that the job is about, if it is about one."""
    try:
        event = json.loads(Path(os.environ["GITHUB_EVENT_PATH"]).read_text(encoding="utf-8"))
        return int(event["pull_request"]["number"])
    except (KeyError, TypeError, ValueError, OSError):
        return None


class Api:
    """Requests to GitHub's REST interface.

    Args:
        address: where it is.
        token: what they are made with; it goes to that address and nowhere else.
    """

    def __init__(self, address: str, token: str) -> None:
        self._address, self._token = address.rstrip("/"), token

    def ask(self, method: str, place: str, body: object = None) -> tuple[Any, str | None]:
        """The answer as JSON, and the place of its next page if it has one."""
        request = urllib.request.Request(
            self._address + place,
            None if body is None else json.dumps(body).encode(),
            {"Accept": "application/vnd.github+json", "X-GitHub-Api-Version": "2022-11-28"},
            method=method,
        )
        # A redirect, to wherever, does not get it.
        request.add_unredirected_header("Authorization", f"Bearer {self._token}")
        with urllib.request.urlopen(request, timeout=TIMEOUT) as answer:
            links = answer.headers.get("Link", "")
            found = json.load(answer)
        following = re.search(r'<([^<>]*)>;\s*rel="next"', links)
        if following is None or not following[1].startswith(self._address + "/"):
            return found, None
        return found, following[1].removeprefix(self._address)

    def pages(self, place: str) -> Iterator[Any]:
        """All entries of a list, over all its pages."""
        following: str | None = place
        while following is not None:
            found, following = self.ask("GET", following)
            yield from found


def write_comment(api: Api, repository: str, number: int, body: str, fresh: bool) -> None:
    """Put our comment on a pull request, in the place of the one that is there.

    What fails is tried anew from the search on: a comment that was written though the answer got
    lost is found then, and not written twice. Without success there is a warning.

    Args:
        api: GitHub.
        repository: as `owner/name`.
        number: of the pull request.
        body: the comment.
        fresh: write one where there is none.
    """
    for attempt in range(1, TRIES + 1):
        try:
            _write(api, repository, number, body, fresh)
            return
        except urllib.error.HTTPError as error:
            why, again = f"{error.code} {error.reason}", error.code >= 500 or error.code == 429
        except (OSError, ValueError) as error:
            why, again = str(getattr(error, "reason", error)), True
        if not again or attempt == TRIES:
            break
        time.sleep(PAUSE * attempt)
    warn(
        f"The comment could not be written: {why}. The summary of the job has the same. "
        "It needs `permissions: pull-requests: write`, which pull requests from forks do not get."
    )


def _write(api: Api, repository: str, number: int, body: str, fresh: bool) -> None:
    issues = f"/repos/{repository}/issues"
    login = _login(api)
    for comment in api.pages(f"{issues}/{number}/comments?per_page=100"):
        author = comment.get("user") or {}
        ours = author.get("login") == login if login else author.get("type") == "Bot"
        if ours and (comment.get("body") or "").startswith(MARK):
            api.ask("PATCH", f"{issues}/comments/{comment['id']}", {"body": body})
            return
    if fresh:
        api.ask("POST", f"{issues}/{number}/comments", {"body": body})


def _login(api: Api) -> str | None:
    """Whose token it is; a job's own may not ask, and writes as a bot."""
    try:
        found, _ = api.ask("GET", "/user")
    except urllib.error.HTTPError as error:
        if error.code in (401, 403, 404):
            return None
        raise
    login = found.get("login")
    return login if isinstance(login, str) else None
