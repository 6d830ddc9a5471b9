"""A job of the action, before a server of its own."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest
from support import command, lora
from support.action import TEXT, TOKEN, GitHub, Job, answering
from support.processes import pem_on_the_path

# What only says how it was called, but for checks.
PEM = """#!/bin/sh
case "$1" in
  check) exec {check} "$@" ;;
  diff) test -n "$DIFF_FAILS" && echo "no such thing" >&2 && exit 1 ;;
  plan) test -n "$PLAN_IS_LONG" && head -c 40000 /dev/zero | tr '\\0' x && exit 0 ;;
esac
printf '%s' "**$1**:"; printf ' <%s>' "$@"; echo
"""


@pytest.fixture
def github() -> Iterator[GitHub]:
    with answering() as server:
        yield server


@pytest.fixture
def job(tmp_path: Path, github: GitHub) -> Job:
    """One recipe, whose weight the second commit changes."""
    env = pem_on_the_path(tmp_path)
    (tmp_path / "bin" / "pem").write_text(PEM.replace("{check}", shlex.join(command())))
    event = tmp_path / "event.json"
    event.write_text(json.dumps({"pull_request": {"number": 7}}))
    env |= {
        "HOME": str(tmp_path),
        "GITHUB_API_URL": github.address,
        "GITHUB_REPOSITORY": "o/r",
        "GITHUB_EVENT_PATH": str(event),
        "GITHUB_STEP_SUMMARY": str(tmp_path / "summary.md"),
        "GITHUB_TOKEN": TOKEN,
        "PEM_LOCKED": "false",
    }
    for name in ("AUTHOR", "COMMITTER"):
        env |= {f"GIT_{name}_NAME": "A", f"GIT_{name}_EMAIL": "a@example.com"}
    made = Job(tmp_path / "repo", github, env)
    made.folder.mkdir()
    made.git("init", "-q")
    lora(made.folder / "a", 1)
    made.write("r.pem", TEXT)
    made.env["PEM_BASE"] = made.commit()
    made.write("r.pem", TEXT.replace("0.5", "0.75"))
    made.commit()
    return made
