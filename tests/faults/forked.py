"""What processes share that fork for each build: all is imported and compiled before."""

from __future__ import annotations

import tempfile
import threading
from pathlib import Path

import pemlang


def contents(folder: Path) -> dict[str, bytes]:
    """Files by name; of what is no folder, nothing."""
    return {path.name: path.read_bytes() for path in folder.iterdir()} if folder.is_dir() else {}


def warm(recipe: Path) -> None:
    """Import and compile all that a build needs: what is forked later has no time for it, nor any
    of the threads that do it."""
    with tempfile.TemporaryDirectory() as elsewhere:
        pemlang.load(recipe).build(elsewhere)
    for thread in threading.enumerate():
        if thread is not threading.current_thread():
            thread.join()
