"""Repositories made for tests, by git itself."""

from __future__ import annotations

import subprocess
from pathlib import Path

_WHO = ("-c", "user.name=x", "-c", "user.email=x@x", "-c", "commit.gpgsign=false")


def git(folder: Path, *words: str, code: int = 0) -> str:
    """What git prints in a folder, where it ends with a code and no traceback."""
    done = subprocess.run(
        ["git", *_WHO, *words], cwd=folder, capture_output=True, check=False, timeout=120
    )
    assert done.returncode == code, done.stderr.decode()
    assert b"Traceback" not in done.stderr
    return done.stdout.decode()


def commit(folder: Path, *paths: str) -> str:
    """Commit some paths, or all there is; the commit's hash."""
    git(folder, "add", "--all", *(paths or (".",)))
    git(folder, "commit", "-qm", "x")
    return git(folder, "rev-parse", "HEAD").strip()
